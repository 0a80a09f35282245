//! The program's metrics on their way out: collected at an interval, and once more at the end.
//!
//! Code measures by `opentelemetry::global::meter`, so that no handle has to be passed around; without [`Meters`] that is
//! a meter that drops everything. A task of our own collects and sends, because the library's periodic reader sends from
//! a thread outside tokio.

use super::exporter;
use super::pipeline::resource;
use super::settings::Target;
use opentelemetry_otlp::MetricExporter;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{
    InstrumentKind, ManualReader, Pipeline, SdkMeterProvider, Temporality,
};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Time between two exports, unless `OTEL_METRIC_EXPORT_INTERVAL` says otherwise.
const INTERVAL: Duration = Duration::from_secs(60);

/// Sends this program's metrics to a backend. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Meters {
    target: Target,
    interval: Duration,
    reader: Collected,
    /// Keeps the instruments alive.
    provider: SdkMeterProvider,
    stopping: CancellationToken,
    task: TaskTracker,
}

/// The reader, shared between the provider and the task.
#[derive(Clone, Debug, Default)]
struct Collected(Arc<ManualReader>);

impl MetricReader for Collected {
    fn register_pipeline(&self, pipeline: Weak<Pipeline>) {
        self.0.register_pipeline(pipeline);
    }

    fn collect(&self, metrics: &mut ResourceMetrics) -> OTelSdkResult {
        self.0.collect(metrics)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn temporality(&self, kind: InstrumentKind) -> Temporality {
        self.0.temporality(kind)
    }
}

impl Meters {
    /// Becomes the receiver of everything that the process measures from now on. `variable` reads the environment.
    /// Nothing is sent before [`Meters::start`].
    pub fn new(
        target: Target,
        service: &'static str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Meters {
        let interval = variable("OTEL_METRIC_EXPORT_INTERVAL");
        let interval = interval.and_then(|text| text.trim().parse().ok());
        let reader = Collected::default();
        let provider = SdkMeterProvider::builder()
            .with_reader(reader.clone())
            .with_resource(resource(service))
            .build();
        opentelemetry::global::set_meter_provider(provider.clone());
        Meters {
            target,
            interval: interval
                .filter(|ms| *ms > 0)
                .map_or(INTERVAL, Duration::from_millis),
            reader,
            provider,
            stopping: CancellationToken::new(),
            task: TaskTracker::new(),
        }
    }

    /// Starts the exports. Must be called within a tokio runtime, once.
    pub fn start(&self) {
        match exporter::metrics(&self.target) {
            Ok(exporter) => {
                let this = self.clone();
                self.task.spawn(async move { this.export(exporter).await });
            }
            Err(error) => self.complain(&error),
        }
        self.task.close();
    }

    /// Sends the metrics once more and stops, at most within `within`.
    pub async fn finish(&self, within: Duration) {
        self.stopping.cancel();
        if tokio::time::timeout(within, self.task.wait())
            .await
            .is_err()
        {
            self.complain("no answer in time");
        }
        // Collecting is impossible from here on, so nothing can be left.
        let _ = self.provider.shutdown();
    }

    async fn export(self, exporter: MetricExporter) {
        let mut failed = false;
        loop {
            let stopping = tokio::select! {
                () = self.stopping.cancelled() => true,
                () = tokio::time::sleep(self.interval) => false,
            };
            let mut metrics = ResourceMetrics::default();
            let sent = match self.reader.collect(&mut metrics) {
                Ok(()) => exporter.export(&metrics).await,
                Err(error) => Err(error),
            };
            if let Err(error) = sent
                && !std::mem::replace(&mut failed, true)
            {
                self.complain(&error.to_string());
            }
            if stopping {
                return;
            }
        }
    }

    /// Logs why metrics aren't sent. Many backends of traces take no metrics, so that is worth a warning only if metrics
    /// were asked for by name.
    fn complain(&self, why: &str) {
        let (endpoint, why) = (self.target.shown(), self.target.hushed(why));
        if self.target.explicit {
            tracing::warn!("metrics could not be sent to {endpoint}: {why}");
        } else {
            tracing::info!(
                "metrics could not be sent to {endpoint}: {why}; OTEL_METRICS_EXPORTER=none turns them off"
            );
        }
    }
}
