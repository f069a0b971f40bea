//! Which connections the user wants to see. The same words in every verb.

use std::net::IpAddr;

use ipnet::IpNet;

use super::snapshot::Process;

/// All conditions must hold; an absent one always does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Process id.
    pub pid: Option<u32>,
    /// Process name, whole.
    pub comm: Option<String>,
    /// Port at either end.
    pub port: Option<u16>,
    /// Local port.
    pub local_port: Option<u16>,
    /// Remote port.
    pub remote_port: Option<u16>,
    /// Address at either end.
    pub network: Option<IpNet>,
    /// Control group path: this one and those below it.
    pub cgroup: Option<String>,
    /// Network namespace, inode number.
    pub netns: Option<u32>,
    /// Address family.
    pub family: Option<Family>,
}

/// Address family. IPv4 over an IPv6 socket is IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What conditions can be about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The process; `None` when it is not known.
    pub process: Option<&'a Process>,
    /// Network namespace of the socket, inode number.
    pub netns: u32,
    /// Local address.
    pub local_addr: IpAddr,
    /// Local port.
    pub local_port: u16,
    /// Remote address; `None` when there is none, or it is not known.
    pub remote_addr: Option<IpAddr>,
    /// Remote port, likewise.
    pub remote_port: Option<u16>,
}

impl Filter {
    /// True when the subject is wanted; `cgroup` is the path of its process's control group, where known.
    pub fn matches(&self, subject: &Subject<'_>, cgroup: Option<&str>) -> bool {
        let process = subject.process.map(|process| (process.pid, process.comm.as_str()));
        self.wants_socket(subject) && self.wants_process(process, cgroup)
    }

    /// Likewise of what several processes hold, each with its pid, its name and the path of its control group, where known: all
    /// conditions on processes must hold for one of them.
    pub fn matches_any<'a>(
        &self,
        subject: &Subject<'_>,
        holders: impl IntoIterator<Item = (u32, &'a str, Option<&'a str>)>,
    ) -> bool {
        self.wants_socket(subject)
            && (self.wants_process(None, None)
                || holders.into_iter().any(|(pid, comm, cgroup)| self.wants_process(Some((pid, comm)), cgroup)))
    }

    /// True when all conditions are about processes, and this one meets them.
    pub fn matches_process(&self, process: &Process, cgroup: Option<&str>) -> bool {
        let of_processes =
            Self { pid: self.pid, comm: self.comm.clone(), cgroup: self.cgroup.clone(), ..Self::default() };
        *self == of_processes && self.wants_process(Some((process.pid, &process.comm)), cgroup)
    }

    fn wants_process(&self, process: Option<(u32, &str)>, cgroup: Option<&str>) -> bool {
        self.pid.is_none_or(|wanted| process.is_some_and(|(pid, _)| pid == wanted))
            && self.comm.as_ref().is_none_or(|wanted| process.is_some_and(|(_, comm)| comm == wanted))
            && self.cgroup.as_ref().is_none_or(|wanted| cgroup.is_some_and(|path| within(path, wanted)))
    }

    fn wants_socket(&self, subject: &Subject<'_>) -> bool {
        let local = |wanted| subject.local_port == wanted;
        let remote = |wanted| subject.remote_port == Some(wanted);
        let inside =
            |net: IpNet| [Some(subject.local_addr), subject.remote_addr].iter().flatten().any(|at| net.contains(at));
        // Only the remote address tells what an IPv6 socket speaks.
        let family_of = subject.remote_addr.unwrap_or(subject.local_addr);
        self.port.is_none_or(|port| local(port) || remote(port))
            && self.local_port.is_none_or(local)
            && self.remote_port.is_none_or(remote)
            && self.network.is_none_or(inside)
            && self.netns.is_none_or(|netns| subject.netns == netns)
            && self.family.is_none_or(|family| (family == Family::V4) == family_of.is_ipv4())
    }
}

fn within(path: &str, wanted: &str) -> bool {
    let wanted = wanted.trim_end_matches('/');
    path.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fixtures::row;

    #[test]
    fn each_condition_keeps_what_it_names_and_hides_the_rest() {
        // The row is nginx (pid 42), 10.0.0.1:80 -> 10.0.0.2:50000, netns 7, in /system.slice/nginx.service.
        let all = Filter::default;
        let net = |text: &str| Some(text.parse().unwrap());
        let cases = [
            (Filter { pid: Some(42), ..all() }, true),
            (Filter { pid: Some(4), ..all() }, false),
            (Filter { comm: Some("nginx".into()), ..all() }, true),
            (Filter { comm: Some("ngin".into()), ..all() }, false),
            (Filter { port: Some(80), ..all() }, true),
            (Filter { port: Some(50_000), ..all() }, true),
            (Filter { port: Some(81), ..all() }, false),
            (Filter { local_port: Some(80), ..all() }, true),
            (Filter { local_port: Some(50_000), ..all() }, false),
            (Filter { remote_port: Some(50_000), ..all() }, true),
            (Filter { remote_port: Some(80), ..all() }, false),
            (Filter { network: net("10.0.0.2/32"), ..all() }, true),
            (Filter { network: net("10.0.0.0/30"), ..all() }, true),
            (Filter { network: net("10.1.0.0/16"), ..all() }, false),
            (Filter { network: net("::/0"), ..all() }, false),
            (Filter { cgroup: Some("/system.slice".into()), ..all() }, true),
            (Filter { cgroup: Some("/system.slice/".into()), ..all() }, true),
            (Filter { cgroup: Some("/system".into()), ..all() }, false),
            (Filter { cgroup: Some("/".into()), ..all() }, true),
            (Filter { netns: Some(7), ..all() }, true),
            (Filter { netns: Some(8), ..all() }, false),
            (Filter { family: Some(Family::V4), ..all() }, true),
            (Filter { family: Some(Family::V6), ..all() }, false),
        ];
        for (filter, wanted) in cases {
            assert_eq!(filter.matches(&row().subject(), Some("/system.slice/nginx.service")), wanted, "{filter:?}");
        }
    }

    #[test]
    fn what_is_unknown_matches_no_condition_on_it() {
        let mut row = row();
        row.process = None;
        assert!(!Filter { pid: Some(42), ..Filter::default() }.matches(&row.subject(), None));
        assert!(!Filter { cgroup: Some("/".into()), ..Filter::default() }.matches(&row.subject(), None));
        assert!(Filter::default().matches(&row.subject(), None));
    }

    #[test]
    fn of_several_holders_one_must_meet_all_conditions() {
        let all = Filter::default;
        let holders = [(1, "systemd", Some("/init.scope")), (42, "nginx", Some("/system.slice/nginx.service"))];
        let listening = Subject { process: None, ..row().subject() };
        for (filter, of_both, of_none) in [
            (all(), true, true),
            (Filter { local_port: Some(80), ..all() }, true, true),
            (Filter { local_port: Some(81), ..all() }, false, false),
            (Filter { pid: Some(42), ..all() }, true, false),
            (Filter { pid: Some(1), ..all() }, true, false),
            (Filter { pid: Some(2), ..all() }, false, false),
            (Filter { comm: Some("nginx".into()), ..all() }, true, false),
            (Filter { cgroup: Some("/system.slice".into()), ..all() }, true, false),
            (Filter { cgroup: Some("/user.slice".into()), ..all() }, false, false),
            (Filter { pid: Some(42), comm: Some("nginx".into()), ..all() }, true, false),
            // Each holds, but for another one of them.
            (Filter { pid: Some(1), comm: Some("nginx".into()), ..all() }, false, false),
            (Filter { pid: Some(42), local_port: Some(81), ..all() }, false, false),
        ] {
            assert_eq!(filter.matches_any(&listening, holders), of_both, "{filter:?}");
            assert_eq!(filter.matches_any(&listening, []), of_none, "{filter:?}");
        }
    }

    #[test]
    fn without_a_remote_end_the_local_one_decides() {
        let all = Filter::default;
        let net = |text: &str| Some(text.parse().unwrap());
        for (local, filter, wanted) in [
            ("0.0.0.0", Filter { port: Some(80), ..all() }, true),
            ("0.0.0.0", Filter { port: Some(50_000), ..all() }, false),
            ("0.0.0.0", Filter { remote_port: Some(50_000), ..all() }, false),
            // Port 0 is no port.
            ("0.0.0.0", Filter { remote_port: Some(0), ..all() }, false),
            ("10.0.0.1", Filter { network: net("10.0.0.1/32"), ..all() }, true),
            ("10.0.0.1", Filter { network: net("10.0.0.2/32"), ..all() }, false),
            ("0.0.0.0", Filter { family: Some(Family::V4), ..all() }, true),
            ("0.0.0.0", Filter { family: Some(Family::V6), ..all() }, false),
            ("::", Filter { family: Some(Family::V6), ..all() }, true),
            ("::", Filter { family: Some(Family::V4), ..all() }, false),
        ] {
            let row = row();
            let listening =
                Subject { local_addr: local.parse().unwrap(), remote_addr: None, remote_port: None, ..row.subject() };
            assert_eq!(filter.matches(&listening, None), wanted, "{local}: {filter:?}");
        }
    }
}
