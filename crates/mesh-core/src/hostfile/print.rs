//! Writes instances as the text of a host file.

use std::net::{IpAddr, Ipv4Addr};

use super::check::{FALL, INTERVAL_MS, RISE, default_timeout};
use super::{CheckFile, CheckKind, InstanceFile, UpstreamFile};
use crate::tomltext::{format_duration, inline, list, string};

/// `instances` as the text of a host file, in their order; what has its default is left out.
///
/// Deterministic; [`parse`](super::parse) gives the same instances but for their origin.
pub fn print(instances: &[InstanceFile]) -> String {
    let texts: Vec<String> = instances.iter().map(print_instance).collect();
    texts.join("\n")
}

fn print_instance(instance: &InstanceFile) -> String {
    let mut lines = vec![
        format!("[instance.{}]", instance.id),
        format!("service = {}", string(instance.service.as_str())),
        format!("port = {}", instance.port),
    ];
    if instance.address != IpAddr::V4(Ipv4Addr::LOCALHOST) {
        lines.push(format!("address = {}", string(&instance.address.to_string())));
    }
    lines.extend(instance.unit.as_ref().map(|unit| format!("unit = {}", string(unit))));
    lines.extend(instance.user.as_ref().map(|user| format!("user = {}", string(user))));
    if !instance.meta.is_empty() {
        let meta = instance.meta.iter().map(|(key, value)| (key, string(value)));
        lines.push(format!("meta = {}", inline(meta)));
    }
    if !instance.upstreams.is_empty() {
        let upstreams = list(instance.upstreams.iter().map(print_upstream));
        lines.push(format!("upstreams = {upstreams}"));
    }
    for check in &instance.checks {
        lines.push(format!("\n[[instance.{}.check]]", instance.id));
        print_check(&mut lines, check);
    }
    lines.join("\n") + "\n"
}

fn print_upstream(upstream: &UpstreamFile) -> String {
    let service = string(upstream.service.as_str());
    match upstream.listen {
        None => service,
        Some(listen) => inline([("service", service), ("listen", string(&listen.to_string()))]),
    }
}

fn print_check(lines: &mut Vec<String>, check: &CheckFile) {
    lines.push(match &check.kind {
        CheckKind::Http(path) => format!("http = {}", string(path)),
        CheckKind::Tcp => "tcp = true".to_owned(),
        CheckKind::Exec(words) => {
            format!("exec = {}", list(words.iter().map(|word| string(word))))
        }
    });
    let CheckFile { interval_ms, timeout_ms, rise, fall, .. } = *check;
    let duration = |ms: u64| string(&format_duration(ms));
    lines.extend(
        (interval_ms != INTERVAL_MS).then(|| format!("interval = {}", duration(interval_ms))),
    );
    let usual = default_timeout(interval_ms);
    lines.extend((timeout_ms != usual).then(|| format!("timeout = {}", duration(timeout_ms))));
    lines.extend((rise != RISE).then(|| format!("rise = {rise}")));
    lines.extend((fall != FALL).then(|| format!("fall = {fall}")));
}
