use std::io::Read as _;

use super::*;

#[tokio::test]
async fn one_computation_serves_all_who_wait() {
    let counters = Arc::new(Counters::default());
    let (scrapes, mut asks) = Scrapes::new(Arc::clone(&counters));
    let scrapes = Arc::new(scrapes);
    for round in 0..3 {
        let who: Vec<_> = (0..50)
            .map(|_| {
                let scrapes = Arc::clone(&scrapes);
                tokio::spawn(async move { scrapes.page().await })
            })
            .collect();
        let ask = asks.next().await.unwrap();
        // All of them have asked by the time that each has run once.
        tokio::task::yield_now().await;
        who[0].abort();
        ask.answer(Ok(format!("round {round}\n")));
        for one in who.into_iter().skip(1) {
            assert_eq!(one.await.unwrap().unwrap().text(), format!("round {round}\n"));
        }
    }
    assert_eq!(counters.computations.load(Relaxed), 3);
    assert_eq!(counters.shared_computations.load(Relaxed), 3 * 49);
}

#[tokio::test]
async fn no_answer_is_an_error_and_the_next_is_asked_anew() {
    let (scrapes, mut asks) = Scrapes::new(Arc::default());
    let scrapes = Arc::new(scrapes);
    let answers: [Option<Result<String, String>>; 3] = [None, Some(Err("why".to_owned())), Some(Ok(String::new()))];
    for (answer, expected) in answers.into_iter().zip([Err("the metrics were not computed"), Err("why"), Ok("")]) {
        let compute = async {
            let ask = asks.next().await.unwrap();
            if let Some(answer) = answer {
                ask.answer(answer);
            }
        };
        let (outcome, ()) = tokio::join!(scrapes.page(), compute);
        let outcome = outcome.map(Page::text);
        assert_eq!(outcome.as_deref().map_err(|why| &**why), expected.map(str::as_bytes));
    }
    drop(asks);
    assert_eq!(&*scrapes.page().await.unwrap_err(), "nothing computes metrics any more");
}

#[tokio::test]
async fn what_is_compressed_is_the_same() {
    let text = "overwatch_listener_accept_queue_length{listener=\"0.0.0.0:80\"} 3\n".repeat(1000);
    let page = Arc::new(Page::new(text.clone(), &Arc::default()));
    let compressed = Arc::clone(&page).gzip().await.unwrap();
    assert!(compressed.len() < text.len() / 20, "{}", compressed.len());
    let mut back = String::new();
    flate2::read::GzDecoder::new(&*compressed).read_to_string(&mut back).unwrap();
    assert_eq!(back, text);
    assert_eq!(page.gzip().await.unwrap().as_ptr(), compressed.as_ptr());
}

#[tokio::test(start_paused = true)]
async fn slow_readers_share_a_page() {
    let counters = Arc::new(Counters::default());
    let (scrapes, mut asks) = Scrapes::new(Arc::clone(&counters));
    let scrapes = Arc::new(scrapes);
    tokio::spawn(async move {
        for number in 0.. {
            let Some(ask) = asks.next().await else { return };
            ask.answer(Ok(number.to_string()));
        }
    });
    let mut slow = Vec::new();
    for _ in 0..100 {
        slow.push(scrapes.page().await.unwrap().text());
    }
    let different = |slow: &[Bytes]| slow.iter().collect::<std::collections::HashSet<_>>().len();
    assert_eq!((different(&slow), counters.computations.load(Relaxed)), (MOST_PAGES, MOST_PAGES as u64));
    for _ in 0..10 {
        tokio::time::advance(SHARED).await;
        for _ in 0..10 {
            slow.push(scrapes.page().await.unwrap().text());
        }
    }
    assert_eq!(different(&slow), MOST_PAGES + 10);
    // Once they have gone, each gets its own again.
    slow.clear();
    assert_eq!(scrapes.alive.load(Relaxed), 0);
    let (first, second) = (scrapes.page().await.unwrap().text(), scrapes.page().await.unwrap().text());
    assert_eq!((first, second), (Bytes::from("18"), Bytes::from("19")));
}
