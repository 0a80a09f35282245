//! A spec for a project that has nothing to take over: it runs at once, and each part says what to replace it with.

use super::draft::{Draft, LANGUAGE, head};
use super::yaml::scalar;

/// Returns the spec. `name` is the project's.
pub fn draft(file: &str, name: &str) -> Draft {
    let head = head(
        file,
        "in a directory without a Compose file or a workflow with a matrix",
    );
    Draft {
        spec: format!(
            "{head}# The language: {LANGUAGE}\n\nname: {}\n{REST}",
            scalar(name)
        ),
        remarks: Vec::new(),
    }
}

const REST: &str = r#"
# One cell for each combination; `exclude` and `include` work as in GitHub Actions.
strategy:
  matrix:
    version: [v1.8, v1.9, v2.0]

# The rows of the table at the end of a run; a step names its row with `verifies`.
coverage:
  release: The release under test answers
  orders: An order is stored and billed

# Each cell gets its own. This one is a small shop inside the phalanx program, so that the spec runs at once. Replace it, for example by
#   shop: { image: "registry.example/shop:${{ matrix.version }}", ports: [8080] }
# or use all services of a Compose file: `stack: { compose: compose.yaml }`.
services:
  shop:
    process: ["${{ phalanx.demo_server }}", --port, "${{ port.http }}", --version, "${{ matrix.version }}"]
    ports: [http]
    ready: { http: { get: "${{ services.shop.url }}/health" }, timeout: 30s }

phases:
  smoke:
    - name: It is the release that was asked for
      verifies: release
      http: { get: "${{ services.shop.url }}/" }
      expect: [json.version == matrix.version]
  orders:
    - id: order
      name: Place an order
      verifies: orders
      http: { post: "${{ services.shop.url }}/orders", json: { sku: book, quantity: 1 } }
      capture: { id: json.id }
      expect: [status == 201]
    - name: It is billed in the end
      verifies: orders
      http: { get: "${{ services.shop.url }}/orders/${{ steps.order.id }}" }
      poll: { until: json.state == 'billed', timeout: 30s }
      expect: [json.sku == 'book']
"#;
