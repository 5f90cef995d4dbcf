use std::cell::Cell;
use std::fs::{self, File};

use bytes::Bytes;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::exec::{BaseEnv, Scanner};
use crate::proto::id::RunId;
use crate::runs::books::Books;
use crate::runs::clock::Moment;
use crate::runs::host::Settings;
use crate::runs::journal::rules::{Digester, Rules};
use crate::runs::recover;
use crate::runs::request::Request;
use crate::runs::table::Key;
use crate::sys::fs::StateDir;

#[test]
fn each_run_is_asked_once_how_long_it_is_abandoned() {
    let (began, asked) = (Instant::now(), Cell::new(0));
    let since = |run: &u64| {
        asked.set(asked.get() + 1);
        (*run != 7).then(|| began - Duration::from_secs(*run))
    };
    assert_eq!(surplus((0..100).collect(), since, 97), [99, 98]);
    assert_eq!(asked.get(), 100);
    assert_eq!(surplus((0..100).collect(), since, 99), [0; 0]);
}

fn host(state: &TempDir) -> Arc<Host> {
    let state = StateDir::open(&state.path().canonicalize().unwrap().join("state")).unwrap();
    let [journal, runs] = ["journal", "runs"].map(|name| state.subdir(name).unwrap());
    let written = (&Rules::default(), Digester::of(&state).unwrap());
    let origin = recover::origin().unwrap();
    let found = recover::open(journal.path(), runs.path(), origin, written).unwrap();
    let books = Books::Server(Box::new(found.ledger));
    let decided = (Settings::default(), BaseEnv::of_this_process());
    Host::new(decided, books, found.table, Scanner::on_demand(), None)
}

#[tokio::test]
async fn an_id_that_is_free_again_is_not_taken_by_who_finds_its_record_gone_late() {
    let state = tempfile::tempdir().unwrap();
    let host = host(&state);
    let runs = state.path().to_owned();
    let keeping = Keeping {
        ready: runs.clone(),
        runs,
        program: File::open("/dev/null").unwrap(),
        record_limit: 0,
        retention: Retention::default(),
    };
    let key = Key { identity: "local:0".into(), id: RunId::new("job").unwrap() };
    let header = json!({"id": "job", "form": "shell", "words": 1, "durable": true});
    let header = serde_json::from_value(header).unwrap();
    let request = Request::parse(header, Bytes::from_static(b"true\0")).unwrap();
    let run = Arc::new(Durable::new(&key, &request, &keeping));
    fs::create_dir(run.folder.path()).unwrap();
    let (code, noted) = (Code::SupervisorLost, Moment::now(""));
    let outcome = Outcome::Lost { code, left_running: 0, length: 0, last: 0, noted };
    run.set_state(State::Over(Arc::new(outcome)));
    let kept = Arc::new(Entry::There(Arc::clone(&run)));
    host.table.keep(key.clone(), Arc::clone(&kept));
    host.let_go(&kept, true, &keeping).unwrap();
    host.found_gone(&run);
    assert!(host.table.find(Some(&key.identity), "job").is_empty());
}
