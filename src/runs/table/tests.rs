use super::*;

/// 0: what does not pass.
impl Held for u8 {
    fn passes(&self) -> bool {
        *self > 0
    }
}

fn key(identity: &str, id: &str) -> Key {
    Key { identity: identity.into(), id: RunId::new(id).unwrap() }
}

fn table() -> Table<u8> {
    Table::new(Duration::ZERO)
}

const NOW: Duration = Duration::ZERO;

#[tokio::test(start_paused = true)]
async fn an_id_is_claimed_once_and_remembered_past_its_end() {
    let table = table();
    assert!(matches!(table.claim(&key("a", "x"), NOW, || Ok(Arc::new(1))), Claim::New(_)));
    assert!(
        matches!(table.claim(&key("a", "x"), NOW, || Ok(Arc::new(2))), Claim::Existing(r) if *r == 1)
    );
    assert!(matches!(table.claim(&key("b", "x"), NOW, || Ok(Arc::new(3))), Claim::New(_)));
    table.confirm(&key("a", "x"));
    tokio::time::advance(REMEMBER - Duration::from_millis(1)).await;
    assert!(matches!(
        table.claim(&key("a", "x"), NOW, || Ok(Arc::new(4))),
        Claim::Past(Code::Forgotten)
    ));
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(matches!(table.claim(&key("a", "x"), NOW, || Ok(Arc::new(5))), Claim::New(_)));
    assert_eq!(table.passing_count(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_nobody_confirmed_is_remembered_as_long_as_its_client_may_ask() {
    let table = table();
    for (n, id) in ["x", "y"].into_iter().enumerate() {
        table.claim(&key("a", id), NOW, || Ok(Arc::new(u8::try_from(n).unwrap())));
    }
    table.end(&key("a", "x"), Code::Forgotten);
    table.confirm(&key("a", "y"));
    let ago = KEEP - Duration::from_millis(1);
    tokio::time::advance(ago).await;
    let again = table.claim(&key("a", "x"), ago, || Ok(Arc::new(2)));
    assert!(matches!(again, Claim::Past(Code::Forgotten)), "{again:?}");
}

#[tokio::test]
async fn what_may_have_been_forgotten_is_never_started() {
    let old = table();
    assert!(matches!(
        old.claim(&key("a", "x"), KEEP, || Ok(Arc::new(1))),
        Claim::Past(Code::BeforeMemory)
    ));
    let young: Table<u8> = Table::new(clock::boottime());
    let ago = Duration::from_secs(1);
    assert!(matches!(
        young.claim(&key("a", "x"), ago, || Ok(Arc::new(1))),
        Claim::Past(Code::BeforeMemory)
    ));
    assert!(matches!(young.claim(&key("a", "x"), NOW, || Ok(Arc::new(1))), Claim::New(_)));
}

#[tokio::test]
async fn a_buried_id_stays_buried() {
    let table = table();
    assert!(matches!(table.bury(&key("a", "x"), NOW), Burial::Buried));
    assert!(matches!(table.bury(&key("a", "x"), NOW), Burial::Past(Code::Buried)));
    assert!(matches!(
        table.claim(&key("a", "x"), NOW, || Ok(Arc::new(1))),
        Claim::Past(Code::Buried)
    ));
    table.claim(&key("a", "y"), NOW, || Ok(Arc::new(1)));
    assert!(matches!(table.bury(&key("a", "y"), NOW), Burial::Existing(_)));
}

#[tokio::test]
async fn a_run_that_did_not_start_frees_its_id() {
    let table = table();
    table.claim(&key("a", "x"), NOW, || Ok(Arc::new(1)));
    table.release(&key("a", "x"));
    assert!(matches!(table.claim(&key("a", "x"), NOW, || Ok(Arc::new(2))), Claim::New(_)));
}

fn claim(table: &Table<u8>, identity: &str, id: &str) -> Claim<u8> {
    table.claim(&key(identity, id), NOW, || Ok(Arc::new(1)))
}

/// Gives the first `count` ids of an identity up.
fn bury(table: &Table<u8>, identity: &str, count: usize) {
    let identity = Arc::<str>::from(identity);
    for n in 0..count {
        let id = RunId::new(&n.to_string()).unwrap();
        let buried = table.bury(&Key { identity: Arc::clone(&identity), id }, NOW);
        assert!(matches!(buried, Burial::Buried), "{buried:?}");
    }
}

/// A user makes any number of keys.
#[tokio::test(start_paused = true)]
async fn all_keys_of_a_user_have_one_share() {
    let table = table();
    bury(&table, "alice@key:one", IDENTITY_IDS_LIMIT - 1);
    assert!(matches!(claim(&table, "alice@key:two", "x"), Claim::New(_)), "its last");
    for identity in ["alice@key:one", "alice@key:two", "alice@key:three"] {
        assert!(matches!(claim(&table, identity, "y"), Claim::Full(Full::Identity)), "{identity}");
    }
    assert!(matches!(claim(&table, "bob@key:one", "y"), Claim::New(_)), "another user");
    table.release(&key("alice@key:two", "x"));
    assert!(matches!(claim(&table, "alice@key:three", "y"), Claim::New(_)), "one was freed");
}

#[tokio::test(start_paused = true)]
async fn an_identity_over_its_share_is_refused_and_takes_nothing_from_others() {
    let table = table();
    bury(&table, "a", IDENTITY_IDS_LIMIT - 1);
    assert!(matches!(claim(&table, "a", "x"), Claim::New(_)), "its last");
    assert!(matches!(claim(&table, "a", "y"), Claim::Full(Full::Identity)));
    assert!(matches!(table.bury(&key("a", "y"), NOW), Burial::Full(Full::Identity)));
    assert!(matches!(claim(&table, "a", "0"), Claim::Past(Code::Buried)), "nothing is forgotten");
    assert!(matches!(claim(&table, "b", "y"), Claim::New(_)), "another has its own share");
    table.release(&key("a", "x"));
    assert!(matches!(claim(&table, "a", "y"), Claim::New(_)), "one was freed");
    assert!(matches!(claim(&table, "a", "x"), Claim::Full(Full::Identity)));
    tokio::time::advance(REMEMBER).await;
    assert!(matches!(claim(&table, "a", "x"), Claim::New(_)), "the others are forgotten");
}

#[tokio::test(start_paused = true)]
async fn a_full_table_refuses_everybody_and_forgets_nothing() {
    let table = table();
    for identity in ["a", "b", "c", "d"] {
        bury(&table, identity, IDS_LIMIT / 4);
    }
    assert!(matches!(claim(&table, "e", "x"), Claim::Full(Full::Table)));
    assert!(matches!(table.bury(&key("e", "x"), NOW), Burial::Full(Full::Table)));
    assert!(matches!(claim(&table, "d", "0"), Claim::Past(Code::Buried)));
}

#[tokio::test(start_paused = true)]
async fn what_was_inherited_is_kept_for_as_long_as_a_client_may_ask() {
    let table = table();
    table.inherit(key("a", "x"), Code::ServerRestarted);
    let ago = KEEP - Duration::from_millis(1);
    tokio::time::advance(ago).await;
    let again = table.claim(&key("a", "x"), ago, || Ok(Arc::new(1)));
    assert!(matches!(again, Claim::Past(Code::ServerRestarted)), "{again:?}");
    tokio::time::advance(Duration::from_millis(1)).await;
    let later = table.claim(&key("a", "x"), KEEP, || Ok(Arc::new(1)));
    assert!(matches!(later, Claim::Past(Code::BeforeMemory)), "{later:?}");
    assert!(matches!(claim(&table, "a", "x"), Claim::New(_)));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_kept_is_not_forgotten_with_what_its_id_stood_for_before() {
    let table = table();
    table.inherit(key("a", "x"), Code::ServerRestarted);
    table.keep(key("a", "x"), Arc::new(0));
    tokio::time::advance(KEEP).await;
    assert!(matches!(claim(&table, "a", "x"), Claim::Existing(run) if *run == 0));
}

#[tokio::test(start_paused = true)]
async fn ids_of_durable_runs_that_are_over_count_and_are_never_forgotten_for_a_new_one() {
    let table = table();
    let identity = Arc::<str>::from("a");
    let named = |n: usize| {
        let id = RunId::new(&format!("job-{n}")).unwrap();
        Key { identity: Arc::clone(&identity), id }
    };
    let over = Arc::new(0);
    (1..IDENTITY_IDS_LIMIT).for_each(|n| table.keep(named(n), Arc::clone(&over)));
    assert!(matches!(claim(&table, "a", "last"), Claim::New(_)));
    assert!(matches!(claim(&table, "a", "one-more"), Claim::Full(Full::Identity)));
    assert!(matches!(claim(&table, "a", "job-1"), Claim::Existing(_)));
    // What is left of a run takes its place, not another one.
    table.keep(named(1), Arc::new(0));
    assert!(matches!(claim(&table, "a", "one-more"), Claim::Full(Full::Identity)));
    table.release(&named(1));
    assert!(matches!(claim(&table, "a", "one-more"), Claim::New(_)));
}

#[tokio::test]
async fn a_whole_id_is_not_taken_for_a_part_of_another() {
    let table = table();
    for (n, id) in ["deploy-4", "deploy-42"].into_iter().enumerate() {
        table.claim(&key("a", id), NOW, || Ok(Arc::new(u8::try_from(n).unwrap())));
    }
    let a = Arc::from("a");
    for whose in [Some(&a), None] {
        assert_eq!(table.find(whose, "deploy-4"), [Arc::new(0)]);
        assert_eq!(table.find(whose, "deploy-42"), [Arc::new(1)]);
        assert_eq!(table.find(whose, "deploy").len(), 2);
    }
}
