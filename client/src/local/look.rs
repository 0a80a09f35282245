//! Reads local runs: through their own coordinator while it is alive, else from the journal that it left.

use super::place::{self, Place, Temporary};
use super::{Error, client, find};
use crate::credential::Client;
use phalanx_coordinator::access::Access;
use phalanx_coordinator::dispatch::logs::store::LogStore;
use phalanx_coordinator::journal::SqliteStore;
use phalanx_coordinator::serve::api::Api;
use phalanx_coordinator::serve::api::gc::{LOGS, WORKSPACES};
use phalanx_coordinator::serve::http;
use phalanx_coordinator::serve::server::journal_path;
use phalanx_coordinator::serve::web;
use phalanx_coordinator::submission::SpecPlanner;
use phalanx_coordinator::supervisor::{Handle, look_at};
use phalanx_coordinator::workspace::Workspaces;
use phalanx_proto::channel;
use phalanx_proto::v1;
use phalanx_shared::clock::SystemClock;
use phalanx_shared::id::RunId;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Buffer of the connection within this process, in bytes.
const PIPE: usize = 256 << 10;

/// A client for questions about a local run.
pub struct Look {
    client: Client,
    run: RunId,
    reader: Option<Reader>,
    // Holds the journal of an exported run.
    _unpacked: Option<Temporary>,
}

/// Answers from a journal in this process until it is dropped.
pub(super) struct Reader {
    handle: Handle,
    logs: LogStore,
    _server: AbortOnDropHandle<()>,
}

impl Look {
    /// Serves pages that only show, until `stop` is cancelled. Returns an error if another process answers for the run.
    pub async fn serve(
        &self,
        listener: TcpListener,
        explained: &'static [(&'static str, &'static str)],
        stop: CancellationToken,
    ) -> std::io::Result<()> {
        let reader = self.reader.as_ref();
        let reader = reader.ok_or_else(|| std::io::Error::other("its run is still going on"))?;
        let pages = web::Options {
            actions: web::Actions::NONE,
            explained,
        };
        let (handle, logs) = (reader.handle.clone(), reader.logs.clone());
        http::serve(
            handle,
            logs,
            Access::off(),
            Some(pages),
            listener,
            None,
            stop,
        )
        .await
    }

    /// Returns the client.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Returns a reader of an exported run.
    pub(super) fn unpacked(reached: Reached, run: RunId, unpacked: Temporary) -> Look {
        let (client, reader) = reached;
        Look {
            client,
            run,
            reader,
            _unpacked: Some(unpacked),
        }
    }

    /// Returns the run's id.
    pub fn run(&self) -> &RunId {
        &self.run
    }
}

/// Opens a local run by its id, or by the unique beginning of one.
pub async fn open(state_dir: &Path, run: &str) -> Result<Look, Error> {
    let found = find(state_dir, run).await;
    let found = found.ok_or_else(|| Error::NoSuchRun(run.to_owned()))?;
    let (client, reader) = reach(&found.place).await?;
    Ok(Look {
        client,
        run: found.run,
        reader,
        _unpacked: None,
    })
}

/// Lists all local runs, newest first.
pub async fn list(state_dir: &Path, limit: u32, open: bool) -> Result<Vec<v1::RunSummary>, Error> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut runs = summaries(place::all(state_dir), open).await;
    runs.truncate(limit);
    Ok(runs)
}

/// Lists the runs of the newest directories, newest first.
pub async fn newest(state_dir: &Path, directories: usize) -> Vec<v1::RunSummary> {
    let mut places = place::all(state_dir);
    places.truncate(directories);
    summaries(places, false).await
}

async fn summaries(places: Vec<Place>, open: bool) -> Vec<v1::RunSummary> {
    let mut runs: Vec<v1::RunSummary> = Vec::new();
    for place in places {
        // Reruns are in the directory of the run that they repeat, so a newer directory may contain only older runs.
        let listed = match reach(&place).await {
            Ok((mut client, _server)) => {
                let request = v1::ListRunsRequest { limit: 0, open };
                let answer = client.list_runs(request).await;
                answer.map_err(|status| status.message().to_owned())
            }
            Err(error) => Err(error.to_string()),
        };
        match listed {
            Ok(answer) => runs.extend(answer.into_inner().runs),
            // The directory's name is the run's id.
            Err(problem) => runs.push(v1::RunSummary {
                run_id: place.name(),
                submitted_us: place.begun_us(),
                problem,
                ..v1::RunSummary::default()
            }),
        }
    }
    runs.sort_unstable_by_key(|run| std::cmp::Reverse(run.submitted_us));
    runs
}

pub(super) type Reached = (Client, Option<Reader>);

async fn reach(place: &Place) -> Result<Reached, Error> {
    match place.connect().await {
        Ok(channel) => Ok((client(channel), None)),
        // No coordinator listens: it was killed, or it has ended.
        Err(_) => read(place).await,
    }
}

/// Answers from the journal in this process. Starts and changes nothing.
pub(super) async fn read(place: &Place) -> Result<Reached, Error> {
    let directory = place.directory();
    let store = SqliteStore::open_for_reading(&journal_path(directory)).await?;
    let workspaces = Workspaces::new(directory.join(WORKSPACES));
    let planner = Arc::new(SpecPlanner {
        workspaces: workspaces.clone(),
        max_cells: None,
    });
    let handle = look_at(Arc::new(store), planner, Arc::new(SystemClock::default()));
    let logs = LogStore::new(directory.join(LOGS));
    let api = Api::new(
        handle.clone(),
        logs.clone(),
        workspaces,
        directory.to_owned(),
    );
    let (near, far) = tokio::io::duplex(PIPE);
    let server = api.answer(far);
    let mut near = Some(near);
    let open = move || -> channel::Boxed<_> {
        let taken = near.take().map(|end| Box::new(end) as Box<dyn channel::Io>);
        let gone = || std::io::Error::other("the journal is read over one connection only");
        Box::pin(std::future::ready(taken.ok_or_else(gone)))
    };
    let channel = channel::connect_by(channel::nowhere(), Box::new(open)).await;
    let channel = channel.map_err(|error| Error::Connect(error.to_string()))?;
    let reader = Reader {
        handle,
        logs,
        _server: server,
    };
    Ok((client(channel), Some(reader)))
}
