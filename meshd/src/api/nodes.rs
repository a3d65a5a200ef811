//! What agents say of their nodes, and what operators decide about them.

use std::net::IpAddr;

use mesh_core::api::{AddressRequest, RevokeRequest, SyncRequest, Written};
use mesh_core::catalog::NodePolicy;
use mesh_core::command::{CommandKind, SetNodeAddress1, SyncInstances1};
use mesh_core::limits::INSTANCES_PER_NODE_MAX;
use mesh_core::name::NodeName;
use mesh_core::trust::{Principal, Revocation, Revoked};
use mesh_net::clock;

use super::Answer;
use super::error::{Failure, Kind};
use super::request::Call;
use crate::limits::api::{REASON_BYTES_MAX, SERIAL_CHARS_MAX};

/// Writes `kind` on behalf of the caller.
pub(super) async fn write(call: &Call, kind: CommandKind) -> Result<Answer, Failure> {
    let outcome = call.server.node.propose(call.by.clone(), kind).await?;
    let revision = outcome.revision()?;
    Answer::json(&Written { revision }, revision)
}

/// The node that calls.
pub(super) fn own(call: &Call) -> Result<NodeName, Failure> {
    match &call.by {
        Principal::Node(node) => Ok(node.clone()),
        Principal::Anonymous
        | Principal::Server(_)
        | Principal::ExpiredNode(_)
        | Principal::Service(_)
        | Principal::Token { .. } => {
            Err(Failure::new(Kind::Forbidden, "forbidden", format!("{} is no node", call.by)))
        }
    }
}

pub(super) async fn sync(call: &Call) -> Result<Answer, Failure> {
    let node = own(call)?;
    let SyncRequest { upsert, remove } = call.json()?;
    for (field, found) in [("upsert", upsert.len()), ("remove", remove.len())] {
        if found > INSTANCES_PER_NODE_MAX {
            let text = format!("{field} has {found}, expected at most {INSTANCES_PER_NODE_MAX}");
            return Err(Failure::field(field, text));
        }
    }
    let sync = SyncInstances1 { node, upsert, remove };
    write(call, CommandKind::SyncInstances1(sync)).await
}

pub(super) async fn set_address(call: &Call) -> Result<Answer, Failure> {
    let node = own(call)?;
    let AddressRequest { address, port } = call.json()?;
    check_address(address, port)?;
    write(call, CommandKind::SetNodeAddress1(SetNodeAddress1 { node, address, port })).await
}

pub(super) async fn set_policy(call: &Call) -> Result<Answer, Failure> {
    let (node, policy): (NodeName, NodePolicy) = (call.name()?, call.json()?);
    write(call, CommandKind::SetNodePolicy1 { node, policy }).await
}

pub(super) async fn remove(call: &Call) -> Result<Answer, Failure> {
    write(call, CommandKind::RemoveNode1(call.name()?)).await
}

pub(super) async fn revoke(call: &Call) -> Result<Answer, Failure> {
    let RevokeRequest { what, reason } = call.json()?;
    check_text("reason", &reason, REASON_BYTES_MAX)?;
    let what = normal(what)?;
    let revocation = Revocation { what, at: clock::now(), reason };
    write(call, CommandKind::Revoke1(revocation)).await
}

/// A serial as verifiers know it: they compare texts, so that another spelling would deny nobody.
fn normal(what: Revoked) -> Result<Revoked, Failure> {
    let Revoked::Serial(text) = what else { return Ok(what) };
    let wrong = || {
        let text = "serial is not 1 to 20 bytes in hex, such as \"0a1b2c\" or \"0A:1B:2C\"";
        Failure::field("what", text)
    };
    if text.len() > SERIAL_CHARS_MAX {
        return Err(wrong());
    }
    let digits: String = text.chars().filter(|c| *c != ':').collect();
    let digits = if digits.len() % 2 == 1 { format!("0{digits}") } else { digits };
    let bytes = hex::decode(digits).map_err(|_| wrong())?;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    match bytes.len() - zeros {
        1..=20 => Ok(Revoked::Serial(hex::encode(&bytes[zeros..]))),
        _ => Err(wrong()),
    }
}

/// Refuses what no agent can be dialled at.
pub(super) fn check_address(address: IpAddr, port: u16) -> Result<(), Failure> {
    if port == 0 {
        return Err(Failure::field("port", "port is 0, expected 1 to 65535"));
    }
    if address.is_unspecified() || address.is_multicast() {
        let text = format!("address is {address}, expected one where other hosts reach the agent");
        return Err(Failure::field("address", text));
    }
    Ok(())
}

/// Refuses a text for people that is too long.
pub(super) fn check_text(field: &str, text: &str, max: usize) -> Result<(), Failure> {
    match text.len() {
        found if found > max => {
            let text = format!("{field} has {found} bytes, expected at most {max}");
            Err(Failure::field(field, text))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn serials_are_denied_as_verifiers_spell_them() {
        let serial = |text: &str| match normal(Revoked::Serial(text.to_owned())) {
            Ok(Revoked::Serial(text)) => Some(text),
            _ => None,
        };
        for good in ["0a1b", "0A:1B", "000a1b", "a1b", "00:0a:1b"] {
            assert_eq!(serial(good).as_deref(), Some("0a1b"), "{good}");
        }
        let long = "1".repeat(42);
        for bad in ["", "00", "0x1b", "é", "1 b", &long, &"0".repeat(4 << 20)] {
            assert_eq!(serial(bad), None, "{bad:.50}");
        }
    }
}
