//! Many tenants.

use std::time::{Duration, Instant};

use catena_driver::Driver;
use catena_model::forwarding::Object;
use catena_testbed::objects::{delete, from, put, state, table};

use crate::world::World;

const TENANTS: u32 = 10_000;
/// A third of what the controller waits for a driver's answer.
const PATIENCE: Duration = Duration::from_secs(20);

fn tenant(n: u32) -> [Object; 2] {
    let via = if n.is_multiple_of(2) { "10.21.0.5" } else { "10.21.0.6" };
    [table(n, "qr-abc", via), from(&format!("10.{}.{}.0/24", n / 256, n % 256), n)]
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_tenants_are_put_and_read_in_time() {
    let world = World::default();
    let bare = world.snapshot();
    let driver = world.driver();
    let all: Vec<_> = (1..=TENANTS).flat_map(tenant).collect();
    let in_time = |what: &str, start: Instant| {
        let took = start.elapsed();
        println!("{what}: {} ms", took.as_millis());
        assert!(took < PATIENCE, "{what} took {took:?}");
    };
    let start = Instant::now();
    put(&driver, &all).await.unwrap();
    in_time("putting all", start);
    let start = Instant::now();
    let found = driver.observe().await.unwrap();
    in_time("reading all", start);
    assert_eq!(found, state(&all));
    let start = Instant::now();
    put(&driver, &tenant(TENANTS + 1)).await.unwrap();
    in_time("putting one more", start);
    let start = Instant::now();
    let removal: Vec<_> = (1..=TENANTS + 1).flat_map(tenant).rev().collect();
    delete(&driver, &removal).await.unwrap();
    in_time("deleting all", start);
    assert_eq!(world.snapshot(), bare);
}
