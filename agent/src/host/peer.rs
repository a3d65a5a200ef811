//! Who may use the agent's socket: root, the agent's own user, and members of the socket's group.

use std::fs;
use std::path::Path;

/// The peer of a connection, by the kernel's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Whose socket it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    /// The group that may use it besides.
    pub(super) gid: Option<u32>,
}

/// Whether `peer` may ask. `is_member` says whether a user is a member of a group; it is asked
/// only if nothing else decides.
pub(super) fn may_ask(
    peer: Peer, owner: Owner, is_member: impl FnOnce(u32, u32) -> bool,
) -> Result<(), String> {
    if peer.uid == 0 || peer.uid == owner.uid {
        return Ok(());
    }
    if owner.gid.is_some_and(|gid| peer.gid == gid || is_member(peer.uid, gid)) {
        return Ok(());
    }
    let uid = peer.uid;
    Err(format!("user {uid} may not use this socket, expected root or a member of group mesh"))
}

/// The id of the group `name` in `/etc/group`.
pub(super) fn group_id(name: &str) -> Option<u32> {
    find_group(&read("/etc/group"), name)
}

/// Whether `/etc/group` lists the user as a member of the group.
pub(super) fn is_member(uid: u32, gid: u32) -> bool {
    let Some(name) = user_name(&read("/etc/passwd"), uid) else { return false };
    lists_member(&read("/etc/group"), gid, &name)
}

fn read(path: &str) -> String {
    let path = Path::new(path);
    fs::read_to_string(path)
        .inspect_err(|why| tracing::warn!(path = %path.display(), "cannot read: {why}"))
        .unwrap_or_default()
}

fn find_group(groups: &str, name: &str) -> Option<u32> {
    lines(groups).find(|fields| fields.first() == Some(&name))?.get(2)?.parse().ok()
}

fn user_name(users: &str, uid: u32) -> Option<String> {
    let uid = uid.to_string();
    let user = lines(users).find(|fields| fields.get(2) == Some(&uid.as_str()))?;
    user.first().map(|name| (*name).to_owned())
}

fn lists_member(groups: &str, gid: u32, user: &str) -> bool {
    let gid = gid.to_string();
    lines(groups).filter(|fields| fields.get(2) == Some(&gid.as_str())).any(|fields| {
        fields.get(3).is_some_and(|users| users.split(',').any(|u| u == user && !u.is_empty()))
    })
}

fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split(':').collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUPS: &str = "root:x:0:\nmesh:x:990:ann,bob\nmeshy:x:991:eve\n";
    const USERS: &str = "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n";

    #[test]
    fn groups_and_users_are_found() {
        assert_eq!(find_group(GROUPS, "mesh"), Some(990));
        assert_eq!(find_group(GROUPS, "nobody"), None);
        assert_eq!(user_name(USERS, 1000).as_deref(), Some("ann"));
        assert!(lists_member(GROUPS, 990, "bob"));
        assert!(!lists_member(GROUPS, 990, "eve"));
        assert!(!lists_member(GROUPS, 0, ""), "an empty list has no members");
    }

    #[test]
    fn only_root_the_agent_and_the_group_may_ask() {
        let owner = Owner { uid: 900, gid: Some(990) };
        let ask =
            |uid, gid| may_ask(Peer { uid, gid }, owner, |uid, gid| uid == 1000 && gid == 990);
        assert!(ask(0, 0).is_ok());
        assert!(ask(900, 900).is_ok());
        assert!(ask(1001, 990).is_ok(), "primary group");
        assert!(ask(1000, 1000).is_ok(), "listed member");
        assert!(ask(1001, 1001).is_err());
        let ungrouped = Owner { uid: 900, gid: None };
        assert!(may_ask(Peer { uid: 1000, gid: 1000 }, ungrouped, |_, _| true).is_err());
    }
}
