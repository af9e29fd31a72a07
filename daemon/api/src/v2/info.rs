//! `/v2/info`. Clients build objects out of its three maps and fail on keys Marathon does not have, so there are only some
//! of Marathon's; what is drover's own stands in `/drover/v1/status`.

use drover_core::change::SERVICE_PORTS;
use drover_core::ids::FrameworkId;
use serde::Serialize;
use serde_json::{Value, json};

/// The Marathon whose shapes these are. Clients choose by it what to send.
pub const MARATHON_VERSION: &str = "1.8.222";

/// What a master says of itself.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Info {
    name: &'static str,
    version: &'static str,
    buildref: String,
    elected: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    leader: Option<String>,
    framework_id: FrameworkId,
    #[serde(rename = "marathon_config")]
    marathon_config: Value,
    #[serde(rename = "zookeeper_config")]
    zookeeper_config: Value,
    #[serde(rename = "http_config")]
    http_config: Value,
}

impl Info {
    /// `leader` is the `host:port` of the leader's HTTP API; `host` and `port` are this master's own. `versions` are kept of
    /// each app.
    pub fn new(drover_version: &str, elected: bool, leader: Option<String>, host: &str, port: u16, versions: u32) -> Self {
        Self {
            name: "marathon",
            version: MARATHON_VERSION,
            buildref: format!("drover {drover_version}"),
            elected,
            leader,
            framework_id: FrameworkId::apps(),
            marathon_config: json!({
                "checkpoint": true,
                "executor": "//cmd",
                "features": [],
                "framework_name": "drover",
                "ha": true,
                "hostname": host,
                "local_port_min": SERVICE_PORTS.start(),
                "local_port_max": SERVICE_PORTS.end(),
                "mesos_role": "*",
            }),
            zookeeper_config: json!({ "zk_max_versions": versions }),
            http_config: json!({ "http_port": port }),
        }
    }
}
