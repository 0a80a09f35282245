//! The `phalanx` binary: handles what must come before settings and threads, then the command of its arguments.

use std::process::ExitCode;

/// Every event and message is many small allocations on one thread that another thread frees.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Some(code) = phalanx_client::entry::early_command() {
        return code;
    }
    phalanx_agent::limits::raise_open_files();
    // An error means that a provider is already installed. Without one, HTTPS would panic.
    let _ = rustls::crypto::ring::default_provider().install_default();
    ExitCode::from(phalanx_client::cli::main())
}
