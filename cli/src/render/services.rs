//! Services of the mesh, and of this host.

use mesh_core::api::{ServiceAnswer, ServiceSummary};
use mesh_core::catalog::Instance;
use mesh_core::policy::Protocol;

use crate::agent::HostServices;
use crate::output::{plain, table};

/// All services.
pub(crate) fn services(all: &[ServiceSummary]) -> String {
    if all.is_empty() {
        return "no services yet: register one on its host by `mesh service add`".to_owned();
    }
    let rows = all.iter().map(|one| {
        vec![
            one.service.to_string(),
            protocol(one.protocol).to_owned(),
            format!("{}/{}", one.healthy, one.instances),
            one.access.as_str().to_owned(),
            one.rules.to_string(),
            one.modified.to_string(),
        ]
    });
    table(&["SERVICE", "PROTOCOL", "HEALTHY", "ACCESS", "RULES", "MODIFIED"], rows)
}

/// One service, with its instances and its policy.
pub(crate) fn service(answer: &ServiceAnswer) -> String {
    let one = &answer.summary;
    let mut out = format!(
        "service   {}\nidentity  {}\nprotocol  {}\naccess    {}\nhealthy   {} of {}\n",
        one.service,
        answer.id,
        protocol(one.protocol),
        one.access.as_str(),
        one.healthy,
        one.instances,
    );
    if !answer.endpoints.is_empty() {
        let rows = answer.endpoints.iter().map(|endpoint| {
            let registered = answer.instances.iter().find(|instance| {
                instance.node == endpoint.node && instance.spec.id == endpoint.instance
            });
            vec![
                endpoint.instance.to_string(),
                endpoint.node.to_string(),
                endpoint.address.to_string(),
                registered.map_or_else(String::new, meta),
                endpoint.state.reason().to_owned(),
            ]
        });
        let endpoints = table(&["INSTANCE", "NODE", "AGENT", "META", "STATE"], rows);
        out = format!("{out}\n{endpoints}\n");
    }
    match answer.policy.trim() {
        "" => format!("{out}\nno policy speaks of it, so every call is denied by default"),
        policy => format!("{out}\n{}", lines(policy)),
    }
}

/// Instances, for `mesh node show`.
pub(super) fn instances(all: &[Instance]) -> String {
    let rows = all.iter().map(|instance| {
        let spec = &instance.spec;
        let upstreams: Vec<&str> = spec.upstreams.iter().map(|name| name.as_str()).collect();
        let failing = spec.checks.iter().filter(|(_, check)| !check.passing);
        let failing: Vec<String> =
            failing.map(|(name, check)| format!("{name}: {}", check.output)).collect();
        vec![
            spec.id.to_string(),
            spec.service.to_string(),
            spec.port.to_string(),
            meta(instance),
            upstreams.join(","),
            spec.health.as_str().to_owned(),
            failing.join("; "),
        ]
    });
    table(&["INSTANCE", "SERVICE", "PORT", "META", "CALLS", "HEALTH", "FAILING"], rows)
}

/// What this host declares, and what is wrong with it.
pub(crate) fn host_services(host: &HostServices) -> String {
    let rows = host.services.iter().map(|one| {
        vec![
            one.instance.clone(),
            one.service.clone(),
            one.address.clone(),
            one.health.clone().unwrap_or_else(|| "unknown".to_owned()),
            one.source.clone(),
        ]
    });
    let mut out = match host.services.is_empty() {
        true => "this host declares no services".to_owned(),
        false => table(&["INSTANCE", "SERVICE", "ADDRESS", "HEALTH", "SOURCE"], rows),
    };
    for problem in &host.problems {
        out.push_str(&format!(
            "\n\nproblem in {}:\n{}",
            plain(&problem.file),
            lines(&problem.message)
        ));
    }
    out
}

fn protocol(protocol: Option<Protocol>) -> &'static str {
    protocol.map_or("tcp (undeclared)", Protocol::as_str)
}

fn meta(instance: &Instance) -> String {
    let pairs: Vec<String> =
        instance.spec.meta.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(",")
}

/// Text of several lines without other control characters.
fn lines(text: &str) -> String {
    text.lines().map(plain).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;
    use crate::agent::{HostProblem, HostService};

    #[test]
    fn services_show_health_and_policy() {
        let want = "\
SERVICE  PROTOCOL          HEALTHY  ACCESS   RULES  MODIFIED
orders   http              1/2      enforce  2      1.40
db       tcp (undeclared)  0/1      audit    0      1.12";
        assert_eq!(services(&samples::services()), want);
        assert!(services(&[]).contains("mesh service add"));
    }

    #[test]
    fn a_service_shows_instances_and_policy() {
        let want = "\
service   orders
identity  spiffe://0123456789ab.mesh.internal/ns/default/dc/dc1/svc/orders
protocol  http
access    enforce
healthy   1 of 2

INSTANCE  NODE  AGENT          META       STATE
orders-1  db-1  10.0.0.3:7443             critical: a check fails or has not passed yet
orders-2  db-1  10.0.0.3:7443  version=2  healthy

[service.orders]
protocol = \"http\"";
        assert_eq!(service(&samples::service()), want);
    }

    #[test]
    fn the_host_shows_what_is_wrong() {
        let web = HostService {
            instance: "web-1".into(),
            service: "web".into(),
            address: "127.0.0.1:8080".into(),
            source: "/etc/mesh/services.d/web.toml".into(),
            health: Some("passing".into()),
        };
        let problem = HostProblem { file: "db.toml".into(), message: "db.toml:1:1: no".into() };
        let host = HostServices { services: vec![web], problems: vec![problem] };
        let want = "\
INSTANCE  SERVICE  ADDRESS         HEALTH   SOURCE
web-1     web      127.0.0.1:8080  passing  /etc/mesh/services.d/web.toml

problem in db.toml:
db.toml:1:1: no";
        assert_eq!(host_services(&host), want);
    }
}
