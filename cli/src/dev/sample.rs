//! The sample mesh: who runs where, who calls whom, and the policy.

/// One host of the sample.
#[derive(Clone, Copy, Debug)]
pub(super) struct SampleHost {
    /// The node's name.
    pub(super) node: &'static str,
    /// The last octet of its address.
    pub(super) number: u8,
    /// What it runs.
    pub(super) apps: &'static [SampleApp],
}

/// One instance of the sample.
#[derive(Clone, Copy, Debug)]
pub(super) struct SampleApp {
    /// The instance.
    pub(super) instance: &'static str,
    /// Its service.
    pub(super) service: &'static str,
    /// The version in its meta.
    pub(super) version: &'static str,
    /// Where it listens on its host's address.
    pub(super) port: u16,
    /// The services it calls, each with the port on its host's address.
    pub(super) upstreams: &'static [(&'static str, u16)],
}

/// The port by which `web` calls `orders`.
pub(super) const WEB_TO_ORDERS: u16 = 9001;
/// The port by which `batch` calls `orders`.
pub(super) const BATCH_TO_ORDERS: u16 = 9002;
/// The port by which `orders` calls `payments`.
const ORDERS_TO_PAYMENTS: u16 = 9003;

/// Every host: web calls orders (v1 and v2), which call payments; batch may not call orders.
pub(super) const HOSTS: [SampleHost; 4] = [
    SampleHost {
        node: "web-host",
        number: 11,
        apps: &[
            app("web-1", "web", "1", 8080, &[("orders", WEB_TO_ORDERS)]),
            app("batch-1", "batch", "1", 8090, &[("orders", BATCH_TO_ORDERS)]),
        ],
    },
    SampleHost {
        node: "orders-host-1",
        number: 12,
        apps: &[app("orders-1", "orders", "1", 8080, &[("payments", ORDERS_TO_PAYMENTS)])],
    },
    SampleHost {
        node: "orders-host-2",
        number: 13,
        apps: &[app("orders-2", "orders", "2", 8080, &[("payments", ORDERS_TO_PAYMENTS)])],
    },
    SampleHost {
        node: "payments-host",
        number: 14,
        apps: &[app("payments-1", "payments", "1", 8080, &[])],
    },
];

const fn app(
    instance: &'static str, service: &'static str, version: &'static str, port: u16,
    upstreams: &'static [(&'static str, u16)],
) -> SampleApp {
    SampleApp { instance, service, version, port, upstreams }
}

/// The policy files, by name.
pub(super) const POLICY: [(&str, &str); 2] = [
    (
        "orders.toml",
        r#"# Who calls orders, and where the calls go.
[service.orders]
protocol = "http"
timeout  = "2s"

[service.orders.subset.v1]
meta = { version = "1" }

[service.orders.subset.v2]
meta = { version = "2" }

# A canary: this header goes to v2, and one request in ten of the rest.
[[service.orders.route]]
match = { header = { "x-canary" = "1" } }
to    = [{ subset = "v2" }]

[[service.orders.route]]
to = [{ subset = "v1", weight = 90 }, { subset = "v2", weight = 10 }]

[[allow.orders]]
name = "shop"
from = ["web"]
http = [{ methods = ["GET"], path_prefix = "/" }]

[[deny.orders]]
name = "no-batch"
from = ["batch"]
"#,
    ),
    (
        "payments.toml",
        r#"[service.payments]
protocol = "http"

[[allow.payments]]
name = "orders-pay"
from = ["orders"]
"#,
    ),
];

/// The file of services.d for `host`, whose address is `ip`.
pub(super) fn host_file(host: &SampleHost, ip: std::net::IpAddr) -> String {
    let mut text = String::new();
    for app in host.apps {
        let upstreams: Vec<String> = app
            .upstreams
            .iter()
            .map(|(service, port)| {
                format!("{{ service = \"{service}\", listen = \"{ip}:{port}\" }}")
            })
            .collect();
        text.push_str(&format!(
            "[instance.{}]\nservice = \"{}\"\naddress = \"{ip}\"\nport = {}\nmeta = {{ version = \"{}\" }}\nupstreams = [{}]\n\n",
            app.instance,
            app.service,
            app.port,
            app.version,
            upstreams.join(", ")
        ));
        text.push_str(&format!(
            "[[instance.{}.check]]\nhttp = \"/health\"\ninterval = \"1s\"\ntimeout = \"500ms\"\nrise = 1\n\n",
            app.instance
        ));
    }
    text
}

/// The services that `host` may run.
pub(super) fn services(host: &SampleHost) -> Vec<String> {
    host.apps.iter().map(|app| app.service.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use mesh_core::{hostfile, policy::text};

    use super::*;

    #[test]
    fn the_sample_parses() {
        let files: Vec<_> =
            POLICY.iter().map(|(name, policy)| text::parse(name, policy).unwrap()).collect();
        assert_eq!(text::check(&files), vec![]);
        for host in &HOSTS {
            let file = host_file(host, "127.77.0.11".parse().unwrap());
            assert_eq!(hostfile::parse("host.toml", &file).unwrap().len(), host.apps.len());
        }
    }
}
