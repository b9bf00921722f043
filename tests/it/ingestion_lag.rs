//! A folder that has always more to do follows all the same, and says how far it is.

use crate::support::until;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use watershed::experiment::assign::{Share, Weight};
use watershed::experiment::record::{
    Declaration, DeclaredExperiment, DeclaredGroup, Exposure, Record, Served,
};
use watershed::experiment::{EpochDigest, ExperimentIndex, GroupIndex, UserId};
use watershed::journal::{self, DeclaredPlan, Options};
use watershed::store::Store;
use watershed::store::ingest::Ingestor;
use watershed::store::sqlite::SqliteStore;
use watershed::telemetry::Telemetry;

/// More than is folded in one batch.
const AHEAD: u64 = 12_000;

fn declaration() -> Declaration {
    Declaration {
        digest: 1,
        experiments: vec![DeclaredExperiment {
            name: "e".to_owned(),
            epoch: EpochDigest(1),
            traffic: Share::ALL,
            groups: vec![DeclaredGroup {
                name: "control".to_owned(),
                weight: Weight::new(1.0).unwrap(),
                upstream: None,
            }],
            metrics: Vec::new(),
            running: true,
            salt: None,
            unit: None,
        }],
        metrics: Vec::new(),
    }
}

#[test]
fn constant_load_is_ingested_and_lag_is_reported() {
    let folder = TempDir::new().unwrap();
    let options = Options::new(1 << 30, 1);
    let sync = Duration::from_millis(200);
    let mut journals = journal::open(folder.path(), 1, sync, &options).unwrap();
    let mut writer = journals.writers.pop().unwrap();
    let store = SqliteStore::open(&folder.path().join("watershed.db")).unwrap();
    let store: Arc<dyn Store> = Arc::new(store);
    let telemetry = Arc::new(Telemetry::new(1));
    let done = Arc::new(AtomicBool::new(false));

    let (numbers, over) = (Arc::clone(&telemetry), Arc::clone(&done));
    let writing = std::thread::spawn(move || {
        let declared = DeclaredPlan::new(&declaration());
        let mut appended = 0;
        while !over.load(Ordering::SeqCst) {
            while writer.written() < numbers.ingestion.reached.load(Ordering::SeqCst) + AHEAD {
                let number = writer.written();
                let user = format!("u{}", number % 100);
                let record = Record {
                    at_ms: number,
                    user: UserId::new(user.as_bytes()).unwrap(),
                    declaration: 1,
                    status: 200,
                    latency_us: 5,
                    exposures: &[Exposure {
                        experiment: ExperimentIndex(0),
                        group: GroupIndex(0),
                        served: Served::Own,
                        epoch: None,
                    }],
                    segments: "",
                    observations: &[],
                    minted: None,
                    is_new: false,
                    unit: "",
                };
                writer.append(&declared, &record).unwrap();
                appended += 1;
            }
            // The folder is far enough behind.
            std::thread::sleep(Duration::from_millis(1));
        }
        appended
    });

    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let house = Arc::clone(&store);
    let told = Arc::clone(&telemetry);
    let ingestion = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let folder = Ingestor::new(journals.readers, house, told, Vec::new);
        runtime.block_on(folder.run(Duration::from_millis(300), async {
            let _ = stopped.await;
        }));
    });
    let mut times = BTreeSet::new();
    until("that it follows", || {
        times.insert(telemetry.ingestion.caught_up_ms.load(Ordering::SeqCst));
        if times.len() > 3 {
            Ok(())
        } else {
            Err(times.clone())
        }
    });
    done.store(true, Ordering::SeqCst);
    let appended: u64 = writing.join().unwrap();
    stop.send(()).unwrap();
    ingestion.join().unwrap();
    let totals = tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(store.totals("e"))
        .unwrap();
    let mut epochs = totals.epochs.iter();
    let requests = epochs.next().unwrap().groups["control"].requests;
    assert_eq!(requests, appended);
}
