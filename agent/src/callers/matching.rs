//! From what the kernel says of a caller to the service it is. Pure.

use std::cmp::Ordering;

use mesh_core::name::ServiceName;

use super::unit::UnitPath;

/// One way to recognise a service's processes on this host, from its registration.
///
/// What is given must all match; a rule that gives nothing matches nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerRule {
    /// The service that such a caller is.
    pub service: ServiceName,
    /// The unit that the caller's cgroup must be, or be below.
    pub unit: Option<UnitPath>,
    /// The user who must have made the caller's socket.
    pub uid: Option<u32>,
}

/// What the kernel says of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelAnswer<'a> {
    /// The user who made the socket.
    pub uid: u32,
    /// The cgroup its maker was in.
    pub place: Place<'a>,
}

/// A caller's cgroup, as far as we can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// The cgroup with this full path.
    At(&'a str),
    /// Certainly in no unit that a rule names.
    Elsewhere,
    /// This kernel, or this host's cgroup tree, cannot tell.
    Unavailable,
    /// Not looked up: too many new cgroups in too short a time. A later call may tell.
    Unresolved,
}

/// Who is calling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A process of this service.
    Service(ServiceName),
    /// A process of this host that is no registered service. It may act as the node, if the
    /// agent's `local_callers` says so.
    Other {
        /// The user who made its socket.
        uid: u32,
    },
    /// Nobody can say: to be denied and counted.
    Unknown {
        /// Why.
        reason: UnknownReason,
    },
}

/// Why a caller is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UnknownReason {
    /// The accepted connection is itself over, or no TCP over IP.
    Ended,
    /// No socket of this host is at its other end, established and held by a process.
    Gone,
    /// Its socket was another one at the second look.
    Changed,
    /// The kernel could not be asked.
    Kernel,
    /// A rule asks for a unit, and units cannot be told on this host.
    NoUnits,
    /// Its unit was not looked up, for there were too many new ones.
    Busy,
    /// It matches two services equally well.
    Ambiguous,
}

impl UnknownReason {
    /// Every reason, for who keeps one counter each.
    pub const ALL: [Self; 7] = [
        Self::Ended,
        Self::Gone,
        Self::Changed,
        Self::Kernel,
        Self::NoUnits,
        Self::Busy,
        Self::Ambiguous,
    ];

    /// The reason as a stable word, for metric labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Gone => "gone",
            Self::Changed => "changed",
            Self::Kernel => "kernel",
            Self::NoUnits => "no_units",
            Self::Busy => "busy",
            Self::Ambiguous => "ambiguous",
        }
    }
}

/// The service that `answer` is by `rules`: of those that match, the most specific.
///
/// A deeper unit is more specific than one above it, any unit more than none, and then a user more
/// than none. Two services that match equally well are neither; the order of `rules` never
/// matters. Where a unit cannot be told, a rule that could have matched by it makes the caller
/// unknown rather than leave it to a weaker rule.
pub fn resolve(answer: KernelAnswer<'_>, rules: &[CallerRule]) -> Caller {
    let unknown = |reason| Caller::Unknown { reason };
    let of_user = |rule: &&CallerRule| rule.uid.is_none_or(|uid| uid == answer.uid);
    let candidates = rules.iter().filter(of_user);
    let cgroup = match answer.place {
        Place::At(path) => Some(path),
        Place::Elsewhere => None,
        Place::Unavailable if candidates.clone().any(|rule| rule.unit.is_some()) => {
            return unknown(UnknownReason::NoUnits);
        }
        Place::Unresolved if candidates.clone().any(|rule| rule.unit.is_some()) => {
            return unknown(UnknownReason::Busy);
        }
        Place::Unavailable | Place::Unresolved => None,
    };
    let best = candidates.fold(Best::Nobody, |best, rule| match specificity(rule, cgroup) {
        Some(rank) => best.or(rank, rule),
        None => best,
    });
    match best {
        Best::Nobody => Caller::Other { uid: answer.uid },
        Best::One(_, rule) => Caller::Service(rule.service.clone()),
        Best::Several(_) => unknown(UnknownReason::Ambiguous),
    }
}

/// How well a rule fits: the length of its unit's path, then whether it names the user.
type Rank = (usize, bool);

enum Best<'a> {
    Nobody,
    One(Rank, &'a CallerRule),
    /// Different services, equally well.
    Several(Rank),
}

impl<'a> Best<'a> {
    fn or(self, rank: Rank, rule: &'a CallerRule) -> Self {
        let held = match self {
            Self::Nobody => return Self::One(rank, rule),
            Self::One(held, _) | Self::Several(held) => held,
        };
        match (rank.cmp(&held), self) {
            (Ordering::Greater, _) => Self::One(rank, rule),
            (Ordering::Equal, Self::One(_, other)) if other.service != rule.service => {
                Self::Several(rank)
            }
            (Ordering::Equal | Ordering::Less, best) => best,
        }
    }
}

/// The rank of `rule`, whose user fits, for a caller in `cgroup`; `None` if it does not match.
///
/// Of the units that hold one cgroup, the longer path is the deeper.
fn specificity(rule: &CallerRule, cgroup: Option<&str>) -> Option<Rank> {
    match (&rule.unit, cgroup) {
        (Some(unit), Some(cgroup)) if unit.holds(cgroup) => {
            Some((unit.as_str().len(), rule.uid.is_some()))
        }
        (Some(_), _) => None,
        (None, _) => rule.uid.is_some().then_some((0, true)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    fn rule(service: &str, unit: &str, uid: impl Into<Option<u32>>) -> CallerRule {
        let unit = (!unit.is_empty()).then(|| unit.parse().unwrap());
        CallerRule { service: service.parse().unwrap(), unit, uid: uid.into() }
    }

    fn service(name: &str) -> Caller {
        Caller::Service(name.parse().unwrap())
    }

    fn unknown(reason: UnknownReason) -> Caller {
        Caller::Unknown { reason }
    }

    const OTHER: Caller = Caller::Other { uid: 7 };
    const WEB: Place<'_> = Place::At("/system.slice/web.service");

    #[test]
    fn a_unit_is_its_full_path_and_what_is_below() {
        let rules = [rule("web", "web.service", None)];
        let cases = [
            ("itself", "/system.slice/web.service", service("web")),
            ("child", "/system.slice/web.service/sub", service("web")),
            ("grandchild", "/system.slice/web.service/sub/x", service("web")),
            ("user's own", "/user.slice/user-7.slice/user@7.service/web.service", OTHER),
            ("same ending", "/user.slice/system.slice/web.service", OTHER),
            ("longer name", "/system.slice/web.service-evil", OTHER),
            ("longer name's child", "/system.slice/web.service-evil/web.service", OTHER),
            ("parent", "/system.slice", OTHER),
            ("root", "/", OTHER),
            ("nothing", "", OTHER),
        ];
        for (name, path, want) in cases {
            let answer = KernelAnswer { uid: 7, place: Place::At(path) };
            assert_eq!(resolve(answer, &rules), want, "case: {name}");
        }
    }

    #[test]
    fn the_most_specific_rule_wins_and_ties_are_nobody() {
        let web = || rule("web", "web.service", None);
        let by_uid = || rule("shell", "", 7);
        let sub = || rule("sub", "/system.slice/web.service/sub", None);
        let below = Place::At("/system.slice/web.service/sub/x");
        let ambiguous = unknown(UnknownReason::Ambiguous);
        let cases = [
            ("no rules", WEB, vec![], OTHER),
            ("empty rule", WEB, vec![rule("a", "", None)], OTHER),
            ("uid", Place::Elsewhere, vec![by_uid()], service("shell")),
            ("uid in some unit", WEB, vec![by_uid()], service("shell")),
            ("other uid", WEB, vec![rule("a", "", 8)], OTHER),
            ("both match", WEB, vec![rule("a", "web.service", 7)], service("a")),
            ("both, wrong uid", WEB, vec![rule("a", "web.service", 8)], OTHER),
            ("both, wrong unit", WEB, vec![rule("a", "b.service", 7)], OTHER),
            ("unit over uid", WEB, vec![web(), by_uid()], service("web")),
            ("both over unit", WEB, vec![web(), rule("a", "web.service", 7)], service("a")),
            ("deeper unit", below, vec![web(), sub()], service("sub")),
            ("deeper over uid", below, vec![rule("a", "web.service", 7), sub()], service("sub")),
            ("two units", WEB, vec![web(), rule("a", "web.service", None)], ambiguous.clone()),
            ("two uids", WEB, vec![by_uid(), rule("a", "", 7)], ambiguous.clone()),
            ("one service twice", WEB, vec![web(), web()], service("web")),
            (
                "tie, then better",
                below,
                vec![web(), rule("a", "web.service", None), sub()],
                service("sub"),
            ),
            ("tie of three", WEB, vec![web(), rule("a", "web.service", None), web()], ambiguous),
        ];
        for (name, place, rules, want) in cases {
            let answer = KernelAnswer { uid: 7, place };
            assert_eq!(resolve(answer, &rules), want, "case: {name}");
            let backwards: Vec<_> = rules.into_iter().rev().collect();
            assert_eq!(resolve(answer, &backwards), want, "case: {name}, backwards");
        }
    }

    #[test]
    fn an_untold_unit_never_falls_to_a_weaker_rule() {
        let no_units = unknown(UnknownReason::NoUnits);
        let busy = unknown(UnknownReason::Busy);
        let mixed = || vec![rule("web", "web.service", 7), rule("shell", "", 7)];
        let others = || vec![rule("web", "web.service", 8), rule("shell", "", 7)];
        let cases = [
            ("unavailable", Place::Unavailable, mixed(), no_units),
            ("unresolved", Place::Unresolved, mixed(), busy),
            ("unit of another user", Place::Unavailable, others(), service("shell")),
            ("only users", Place::Unresolved, vec![rule("shell", "", 7)], service("shell")),
            ("elsewhere", Place::Elsewhere, mixed(), service("shell")),
            ("no rules", Place::Unavailable, vec![], OTHER),
        ];
        for (name, place, rules, want) in cases {
            assert_eq!(resolve(KernelAnswer { uid: 7, place }, &rules), want, "case: {name}");
        }
    }
}
