//! Clients that keep books of every answer.

use super::books::{Book, Books};
use crate::support::client::Client;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How many clients drive at the same time; each has users of its own.
const CLIENTS: usize = 4;
const USERS: usize = 120;

/// Clients at work.
pub struct Driver {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Books>>,
}

impl Driver {
    /// Sends requests to these proxies, in turn, until told to stop.
    pub fn start(seed: u64, proxies: &[SocketAddr], pace: Duration) -> Driver {
        let stop = Arc::new(AtomicBool::new(false));
        let answers = Arc::new(AtomicU64::new(0));
        let client = |number: usize| {
            let (stop, answers) = (Arc::clone(&stop), Arc::clone(&answers));
            let proxies = proxies.to_vec();
            let dice = fastrand::Rng::with_seed(seed.wrapping_add(number as u64));
            std::thread::spawn(move || drive(number, dice, &proxies, pace, &stop, &answers))
        };
        Driver {
            clients: (0..CLIENTS).map(client).collect(),
            stop,
            answers,
        }
    }

    /// Waits until so many more requests were answered.
    pub fn until_answered(&self, more: u64) {
        let enough = self.answers.load(Ordering::Relaxed) + more;
        crate::support::until("answers", || {
            let answers = self.answers.load(Ordering::Relaxed);
            (answers >= enough).then_some(()).ok_or(answers)
        });
    }

    /// Lets what is under way finish; the books.
    pub fn finish(self) -> Books {
        self.stop.store(true, Ordering::Relaxed);
        let books = self
            .clients
            .into_iter()
            .map(|client| client.join().unwrap());
        books.flatten().collect()
    }
}

fn drive(
    number: usize,
    mut dice: fastrand::Rng,
    proxies: &[SocketAddr],
    pace: Duration,
    stop: &AtomicBool,
    answers: &AtomicU64,
) -> Books {
    let mut books = Books::new();
    let mut connections: Vec<Option<Client>> = proxies.iter().map(|_| None).collect();
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(pace);
        // IDs of a length that fills journals.
        let user = format!("client-{number}-user-{:0>180}", dice.usize(..USERS));
        let proxy = dice.usize(..proxies.len());
        let connection = &mut connections[proxy];
        if connection.is_none() {
            *connection = Client::try_connect(proxies[proxy]).ok();
        }
        let Some(client) = connection else {
            // Nothing was sent.
            continue;
        };
        // A purchase in three, of an amount that tells what was counted from what was not.
        let cents = if dice.u8(..3) == 0 {
            dice.i64(1..5_000)
        } else {
            0
        };
        let path = match cents {
            0 => "/page".to_owned(),
            _ => format!(
                "/buy?event=purchase;amount={}.{:02}",
                cents / 100,
                cents % 100
            ),
        };
        let book: &mut Book = books.entry(user.clone()).or_default();
        let purchases = u64::from(cents > 0);
        match client.try_get(&path, &format!("Cookie: uid={user}\r\n")) {
            Ok(answer) => {
                assert_eq!(answer.status, 200, "{}", answer.text());
                let group = answer.json()["version"].as_str().unwrap().to_owned();
                if book.groups.last() != Some(&group) {
                    book.groups.push(group);
                }
                answers.fetch_add(1, Ordering::Relaxed);
                book.requests += 1;
                book.purchases += purchases;
                book.cents += cents;
            }
            Err(_) => {
                book.unanswered.push((purchases, cents));
                *connection = None;
            }
        }
    }
    books
}
