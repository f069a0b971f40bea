use super::*;
use crate::{
    export::family::{text, write},
    model::queue::{
        Count,
        fixtures::{row, unknown_row},
    },
};

fn path(number: u64) -> Option<&'static str> {
    (number == 9).then_some("/system.slice/apache2.service")
}

/// The page of these.
fn page(listeners: &mut Listeners) -> String {
    let mut families = Vec::new();
    write(FAMILIES, LABELS, &listeners.take(&path), &mut families);
    text(&families).unwrap()
}

/// A listening socket with that number, at that port, that has accepted so many.
fn socket(listener: u64, local_port: u16, accepts: u64) -> Row {
    let mut row = row();
    row.queue = Queue { listener, local_port, accepts: Count { interval: 0, total: accepts }, ..row.queue };
    row
}

/// The accepts in the page by listener and socket.
fn accepts(page: &str) -> Vec<&str> {
    page.lines().filter_map(|line| line.strip_prefix("overwatch_listener_accepts_total")).collect()
}

#[test]
fn a_listener_in_trouble_is_told_with_all_its_numbers() {
    let mut listeners = Listeners::default();
    listeners.update(vec![row()], 10);
    let page = page(&mut listeners);
    let at = "listener=\"0.0.0.0:8080\",netns=\"7\",socket=\"1\"";
    for (name, labels, value) in [
        ("info", ",processes=\"apache2\",cgroup=\"/system.slice/apache2.service\",backlog_origin=\"listen\"", "1"),
        ("verdict", ",verdict=\"ok\"", "0"),
        ("verdict", ",verdict=\"saturated\"", "1"),
        ("cause", ",cause=\"worker_limit\"", "1"),
        ("cause", ",cause=\"none\"", "0"),
        ("verdict_since_timestamp_seconds", "", "90"),
        ("accept_queue_length", "", "3"),
        ("accept_queue_limit", "", "511"),
        ("accept_queue_peak_length", "", "4"),
        ("syn_queue_length", "", "2"),
        ("waiting_clients", "", "3"),
        ("oldest_wait_seconds", "", "9.5"),
        ("arrivals_total", "", "60"),
        ("accepts_total", "", "40"),
        ("overflows_total", ",stage=\"syn\"", "2"),
        ("overflows_total", ",stage=\"ack\"", "1"),
        ("drops_total", "", "9"),
        ("syn_cookies_total", "", "20"),
        ("syn_queue_overflows_total", "", "30"),
        ("serving_connections", "", "5"),
        ("serving_ceiling_connections", "", "5"),
        ("accept_wait_seconds_bucket", ",le=\"0.2\"", "33"),
        ("accept_wait_seconds_bucket", ",le=\"+Inf\"", "40"),
        ("accept_wait_seconds_count", "", "40"),
        ("open_files", "", "12"),
        ("open_files_limit", "", "1024"),
    ] {
        let line = format!("overwatch_listener_{name}{{{at}{labels}}} {value}\n");
        assert!(page.contains(&line), "{line} is not in\n{page}");
    }
    assert!(!page.contains("stage=\"unknown\""), "{page}");
    assert_eq!(page.matches("_verdict{").count(), Level::NAMES.len());
    assert_eq!(page.matches("_cause{").count(), Cause::NAMES.len());
}

#[test]
fn what_is_not_known_is_not_said() {
    let mut listeners = Listeners::default();
    listeners.update(vec![unknown_row()], 10);
    let page = page(&mut listeners);
    for absent in ["syn_cookies", "syn_queue_overflows", "serving", "open_files", "since_timestamp", "stage=\"syn\""] {
        assert!(!page.contains(absent), "{absent} is in\n{page}");
    }
    for present in [
        "backlog_origin=\"unknown\"",
        "stage=\"unknown\"} 3\n",
        "oldest_wait_seconds{listener=\"0.0.0.0:80\",netns=\"0\",socket=\"1\"} 0\n",
    ] {
        assert!(page.contains(present), "{present} is not in\n{page}");
    }
    // Somebody waits, and nobody knows for how long.
    let mut waiting = unknown_row();
    waiting.queue.waiting_total = 1;
    listeners.update(vec![waiting], 10);
    assert!(!self::page(&mut listeners).contains("oldest_wait"));
}

#[test]
fn the_peak_is_the_highest_since_the_scrape_before() {
    let mut listeners = Listeners::default();
    let with = |peak, now| {
        let mut row = row();
        (row.queue.accept_queue_peak, row.queue.accept_queue) = (peak, now);
        vec![row]
    };
    let mut peak = |intervals: &[(u32, u32)]| {
        for (peak, now) in intervals {
            listeners.update(with(*peak, *now), 10);
        }
        let page = page(&mut listeners);
        let line = page.lines().find(|line| line.starts_with("overwatch_listener_accept_queue_peak_length")).unwrap();
        line.rsplit_once(' ').unwrap().1.to_owned()
    };
    assert_eq!(peak(&[(4, 3), (9, 1), (2, 2)]), "9");
    // Between two scrapes in one interval there is what is there now.
    assert_eq!(peak(&[]), "2");
    assert_eq!(peak(&[(1, 0)]), "2");
    assert_eq!(peak(&[(1, 0)]), "1");
}

#[test]
fn those_beyond_the_cap_are_in_other_and_no_count_goes_back() {
    let mut listeners = Listeners::default();
    let other = "{listener=\"other\",netns=\"other\",socket=\"other\"} ";
    let at = |port: u16| format!("{{listener=\"0.0.0.0:{port}\",netns=\"7\",socket=\"1\"}} ");
    let expect = |listeners: &mut Listeners, expected: &[String]| {
        let page = page(listeners);
        assert_eq!(accepts(&page), expected, "{page}");
        assert_eq!(page.matches("overwatch_listener_info").count(), 2 + expected.len() - 1, "{page}");
    };
    listeners.update(vec![socket(1, 80, 10), socket(2, 81, 20), socket(3, 82, 30), socket(4, 83, 40)], 2);
    expect(&mut listeners, &[at(80) + "10", at(81) + "20", format!("{other}70")]);
    assert_eq!(listeners.series(), (2, 2));
    // One of each goes. Who was in other stays there, and the next one gets the place.
    listeners.update(vec![socket(2, 81, 21), socket(4, 83, 41), socket(5, 84, 1)], 2);
    expect(&mut listeners, &[at(81) + "21", at(84) + "1", format!("{other}71")]);
    // With a lower cap the youngest joins them.
    listeners.update(vec![socket(2, 81, 21), socket(4, 83, 41), socket(5, 84, 2)], 1);
    expect(&mut listeners, &[at(81) + "21", format!("{other}73")]);
    listeners.update(vec![socket(2, 81, 22)], 1);
    expect(&mut listeners, &[at(81) + "22", format!("{other}73")]);
    assert_eq!(listeners.series(), (1, 3));
}

#[test]
fn other_is_as_bad_as_the_worst_of_those_in_it() {
    let mut listeners = Listeners::default();
    let mut well = socket(2, 81, 1);
    (well.verdict.level, well.verdict.cause) = (Level::Ok, Cause::None);
    listeners.update(vec![well.clone(), socket(3, 82, 1), Row { queue: socket(4, 83, 1).queue, ..well }], 0);
    let page = page(&mut listeners);
    for line in [
        "verdict{listener=\"other\",netns=\"other\",socket=\"other\",verdict=\"saturated\"} 1",
        "cause{listener=\"other\",netns=\"other\",socket=\"other\",cause=\"worker_limit\"} 1",
        "accept_queue_length{listener=\"other\",netns=\"other\",socket=\"other\"} 9",
        "oldest_wait_seconds{listener=\"other\",netns=\"other\",socket=\"other\"} 9.5",
        "serving_connections{listener=\"other\",netns=\"other\",socket=\"other\"} 15",
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
    assert!(!page.contains("listener_info{"), "{page}");
}

#[test]
fn sockets_that_share_an_address_keep_their_numbers() {
    let mut listeners = Listeners::default();
    let sockets = |listeners: &mut Listeners| {
        let page = page(listeners);
        let mut all: Vec<String> =
            accepts(&page).iter().map(|line| line.split_once("socket=").unwrap().1.replace(['"', '}'], "")).collect();
        all.sort();
        all
    };
    listeners.update(vec![socket(1, 80, 10), socket(2, 80, 20), socket(3, 81, 30)], 9);
    assert_eq!(sockets(&mut listeners), ["1 10", "1 30", "2 20"]);
    // The first one goes: the second is still the second, and the next takes the free number.
    listeners.update(vec![socket(2, 80, 21), socket(3, 81, 30)], 9);
    assert_eq!(sockets(&mut listeners), ["1 30", "2 21"]);
    listeners.update(vec![socket(2, 80, 21), socket(3, 81, 30), socket(4, 80, 0), socket(5, 80, 5)], 9);
    assert_eq!(sockets(&mut listeners), ["1 0", "1 30", "2 21", "3 5"]);
}
