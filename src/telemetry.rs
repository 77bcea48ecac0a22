//! Every metric name and label, in one file. No label ever holds a token, a subject or anything else of a caller's
//! choosing but the credential's name, which the configuration bounds.

use std::fmt;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text},
    metrics::{family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};

pub use prometheus_client::metrics::counter::Counter;

use crate::name::CredentialName;

/// Labels of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// The rpc.
    pub rpc: &'static str,
    /// `OK`, or the reason of the error.
    pub result: &'static str,
}

/// Labels of a connection that was not served.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ConnectionLabels {
    /// `limit`, `address` (too many of one), `handshakes` (too many at a time), `no_room`, `handshake` (it failed), `timeout`, or
    /// `admin` (too many on the admin port, or too many of one address there).
    pub cause: &'static str,
}

/// Labels of something that happened to a credential.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CredentialLabels {
    /// The credential.
    pub credential: CredentialName,
    /// What came of it.
    pub result: &'static str,
}

/// Labels of a reload.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReloadLabels {
    /// `ok` or `refused`.
    pub result: &'static str,
}

/// The metrics of this process.
pub struct Telemetry {
    registry: Registry,
    /// `bearerd_requests_total`
    pub requests: Family<RequestLabels, Counter>,
    /// `bearerd_token_lookups_total`: `memory`, `store` (it was asked, also about a token at hand) or `refresh`.
    pub lookups: Family<CredentialLabels, Counter>,
    /// `bearerd_refreshes_total`: `ok`, or the cause of the failure.
    pub refreshes: Family<CredentialLabels, Counter>,
    /// `bearerd_grants_died_total`: grants that this replica declared dead, by cause.
    pub grants_died: Family<CredentialLabels, Counter>,
    /// `bearerd_grants_revived_total`: grants that gave a token again after they were declared dead.
    pub grants_revived: Family<CredentialOnly, Counter>,
    /// `bearerd_refresh_seconds`: how long the provider took.
    pub refresh_seconds: Family<CredentialOnly, Histogram>,
    /// `bearerd_reports_total`: what reports of rejected tokens led to.
    pub reports: Family<CredentialLabels, Counter>,
    /// `bearerd_calls_total`: calls through, by the class of the upstream's status.
    pub calls: Family<CredentialLabels, Counter>,
    /// `bearerd_audit_lost_total`: records of the audit log that could not be kept.
    pub audit_lost: Counter,
    /// `bearerd_audit_up`: 1 while records of the audit log can be written; 0 also where there is none.
    pub audit_up: Gauge,
    /// `bearerd_connections`: gRPC connections that are open.
    pub connections: Gauge,
    /// `bearerd_connections_refused_total`: connections that were closed before they were served, by cause.
    pub connections_refused: Family<ConnectionLabels, Counter>,
    /// `bearerd_cached_tokens`: tokens in memory, without the places that are kept for others.
    pub cached_tokens: Gauge,
    /// `bearerd_store_up`: 1 while the store answers.
    pub store_up: Gauge,
    /// `bearerd_reloads_total`: changes of the configuration that were put in force, or refused.
    pub reloads: Family<ReloadLabels, Counter>,
    /// `bearerd_sealed_records`: what each seal key sealed, at the end of the last `ResealRecords` that ended here.
    pub sealed_records: Family<KeyOnly, Gauge>,
    /// `bearerd_configuration_current`: 0 while the files hold something that was refused.
    pub configuration_current: Gauge,
}

/// The credential alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CredentialOnly {
    /// The credential.
    pub credential: CredentialName,
}

/// A seal key alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KeyOnly {
    /// Its id in the configuration, or `unknown`.
    pub key: String,
}

impl EncodeLabelValue for CredentialName {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        self.as_str().encode(encoder)
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("bearerd");
        let seconds = || Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]);
        let telemetry = Self {
            requests: Family::default(),
            lookups: Family::default(),
            refreshes: Family::default(),
            grants_died: Family::default(),
            grants_revived: Family::default(),
            refresh_seconds: Family::new_with_constructor(seconds),
            reports: Family::default(),
            calls: Family::default(),
            audit_lost: Counter::default(),
            audit_up: Gauge::default(),
            connections: Gauge::default(),
            connections_refused: Family::default(),
            cached_tokens: Gauge::default(),
            store_up: Gauge::default(),
            reloads: Family::default(),
            sealed_records: Family::default(),
            configuration_current: Gauge::default(),
            registry: Registry::default(),
        };
        let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version of this process", version);
        registry.register("requests", "Requests by rpc and result", telemetry.requests.clone());
        registry.register("token_lookups", "Tokens served, by where they came from", telemetry.lookups.clone());
        registry.register("refreshes", "Requests to token endpoints, by result", telemetry.refreshes.clone());
        registry.register("grants_died", "Grants declared dead, by cause", telemetry.grants_died.clone());
        let revived = telemetry.grants_revived.clone();
        registry.register("grants_revived", "Grants that gave a token again after they were declared dead", revived);
        registry.register("refresh_seconds", "Duration of token requests", telemetry.refresh_seconds.clone());
        registry.register("reports", "Reports of rejected tokens, by outcome", telemetry.reports.clone());
        registry.register("calls", "Calls through, by class of the upstream's status", telemetry.calls.clone());
        registry.register("audit_lost", "Audit records that could not be kept", telemetry.audit_lost.clone());
        registry.register("audit_up", "1 while audit records can be written", telemetry.audit_up.clone());
        registry.register("connections", "Open gRPC connections", telemetry.connections.clone());
        let refused = telemetry.connections_refused.clone();
        registry.register("connections_refused", "Connections that were not served, by cause", refused);
        registry.register("cached_tokens", "Tokens in memory", telemetry.cached_tokens.clone());
        registry.register("store_up", "1 while the store answers", telemetry.store_up.clone());
        registry.register("reloads", "Changes of the configuration, by result", telemetry.reloads.clone());
        let counted = telemetry.sealed_records.clone();
        registry.register("sealed_records", "Sealed records by key, when they were last counted", counted);
        telemetry.configuration_current.set(1);
        let current = telemetry.configuration_current.clone();
        registry.register("configuration_current", "0 while the files hold something that was refused", current);
        Self { registry, ..telemetry }
    }
}

impl Telemetry {
    /// All metrics in the text format of OpenMetrics.
    pub fn render(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_rendered() {
        let telemetry = Telemetry::default();
        telemetry.requests.get_or_create(&RequestLabels { rpc: "GetToken", result: "OK" }).inc();
        let text = telemetry.render();
        assert!(text.contains(r#"bearerd_build_info{version="0"#), "{text}");
        assert!(text.contains(r#"bearerd_requests_total{rpc="GetToken",result="OK"} 1"#), "{text}");
    }
}
