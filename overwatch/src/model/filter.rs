//! Which rows the user wants to see. The same words in every verb.

use ipnet::IpNet;

use super::snapshot::Row;

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

impl Filter {
    /// True when the row is wanted; `cgroup` is the path of its process's control group, where known.
    pub fn matches(&self, row: &Row, cgroup: Option<&str>) -> bool {
        let process = row.process.as_ref();
        let is = |wanted: Option<u16>, port| wanted.is_none_or(|wanted| wanted == port);
        self.pid.is_none_or(|pid| process.is_some_and(|process| process.pid == pid))
            && self.comm.as_ref().is_none_or(|comm| process.is_some_and(|process| process.comm == *comm))
            && self.port.is_none_or(|port| row.local_port == port || row.remote_port == port)
            && is(self.local_port, row.local_port)
            && is(self.remote_port, row.remote_port)
            && self.network.is_none_or(|net| net.contains(&row.local_addr) || net.contains(&row.remote_addr))
            && self.cgroup.as_ref().is_none_or(|wanted| cgroup.is_some_and(|path| within(path, wanted)))
            && self.netns.is_none_or(|netns| row.netns == netns)
            && self.family.is_none_or(|family| (family == Family::V4) == row.remote_addr.is_ipv4())
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
            assert_eq!(filter.matches(&row(), Some("/system.slice/nginx.service")), wanted, "{filter:?}");
        }
    }

    #[test]
    fn what_is_unknown_matches_no_condition_on_it() {
        let mut row = row();
        row.process = None;
        assert!(!Filter { pid: Some(42), ..Filter::default() }.matches(&row, None));
        assert!(!Filter { cgroup: Some("/".into()), ..Filter::default() }.matches(&row, None));
        assert!(Filter::default().matches(&row, None));
    }
}
