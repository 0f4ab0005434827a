//! Applying and deleting: what is asked is installed everywhere, or nowhere.

use std::time::Duration;

use catena_control::report::{ApplyReport, ChainState, ElementState, EventKind, Outcome};
use catena_control::{ApplyError, Controller, Rollback, Settings};
use catena_driver::simulated::{Fault, SimulatedElement};
use catena_model::forwarding::{Kind, Object, PathId};
use catena_model::resource::Source;
use catena_plan::Phase;
use catena_store::{Revision, Store};

use crate::world::*;

#[tokio::test(start_paused = true)]
async fn what_is_applied_is_installed() {
    let world = World::new(1);
    let controller = world.controller().await;
    let report = apply(&controller, &inventory()).await.unwrap();
    assert!(report.plan.0.is_empty());
    assert!(report.resources.iter().all(|change| change.outcome == Outcome::Created));

    let chain = chain(&["fw", "ips", "web"]);
    let report = apply(&controller, std::slice::from_ref(&chain)).await.unwrap();
    let all: Vec<Source> = inventory().into_iter().chain([chain.clone()]).collect();
    assert_eq!(world.installed(), rendered(&all));
    let phases: Vec<Phase> = report.plan.0.iter().map(|step| step.phase).collect();
    assert!(phases.is_sorted() && phases.contains(&Phase::Install) && phases.contains(&Phase::Flip));

    let status = assert_converged(&controller, &world);
    assert_eq!(status.chains.len(), 1);
    assert_eq!(status.chains[0].state, ChainState::Installed);
    assert_eq!(status.chains[0].sites[0].generation, 1);
    assert_eq!(status.chains[0].sites[0].hops[1].instances.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn applying_twice_is_applying_once() {
    let world = World::new(1);
    let controller = chained(&world).await;
    let (changes, revision) = (world.changes(), world.store.revision().await.unwrap());
    let again: Vec<Source> = inventory().into_iter().chain([chain(&["fw", "ips", "web"])]).collect();
    let report = apply(&controller, &again).await.unwrap();
    assert!(report.plan.0.is_empty());
    assert!(report.resources.iter().all(|change| change.outcome == Outcome::Unchanged));
    assert_eq!((world.changes(), world.store.revision().await.unwrap()), (changes, revision));
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_says_what_would_be_done_and_touches_nothing() {
    let world = World::new(1);
    let controller = chained(&world).await;
    let (installed, revision) = (world.installed(), world.store.revision().await.unwrap());
    let events = last_event(&controller);
    let edited = [chain(&["ips", "fw", "web"])];
    let planned = plan_for(&controller, &edited).await.unwrap();
    assert!(planned.dry_run && !planned.plan.0.is_empty() && planned.draining.len() == 1);
    assert_eq!((world.installed(), world.store.revision().await.unwrap()), (installed, revision));
    assert_eq!(last_event(&controller), events);
    let done = apply(&controller, &edited).await.unwrap();
    assert_eq!(lines(&planned), lines(&done));
    insta::assert_snapshot!(lines(&done).join("\n"), @r"
    install br-int: + path 5 (chain/acme-web/acme-hq gen 2): {ips-1, ips-2} > fw-1 > web-1
    flip br-int: ~ policy of site acme-hq: tcp port 80 and tcp port 443 by path 5 (chain/acme-web/acme-hq gen 2) (was: tcp port 80 and tcp port 443 by path 4 (chain/acme-web/acme-hq gen 1))
    ");
}

/// Intrusion prevention of the example, inserted so; `first` and `second` are said of its instances.
fn ips(insertion: &str, first: &str, second: &str) -> Source {
    let instance = |nth: u8, more: &str| {
        format!(
            "    - name: ips-{nth}\n{more}      inside: {{element: br-int, port: ips{nth}-in}}\n      \
             outside: {{element: br-int, port: ips{nth}-out}}\n"
        )
    };
    let text = format!(
        "apiVersion: catena/v1alpha1\nkind: ServiceFunction\nmetadata: {{name: ips}}\nspec:\n  insertion: {insertion}\n  \
         instances:\n{}{}",
        instance(1, first),
        instance(2, second)
    );
    Source::new("ips.yaml", text)
}

/// An instance drains where it is, on the path that its flows are on. Other shares, or another insertion, are another path.
#[tokio::test(start_paused = true)]
async fn instances_drain_weigh_and_are_inserted_otherwise() {
    let world = World::new(1);
    let controller = chained(&world).await;
    let drained = apply(&controller, &[ips("l2", "      drain: true\n", "")]).await.unwrap();
    insta::assert_snapshot!(lines(&drained).join("\n"), @"install br-int: ~ instance ips-1: l2 draining, inside ips1-in, outside ips1-out (was: instance ips-1: l2, inside ips1-in, outside ips1-out)");
    let weighted = apply(&controller, &[ips("l2", "", "      weight: 3\n")]).await.unwrap();
    insta::assert_snapshot!(lines(&weighted).join("\n"), @"
    install br-int: ~ instance ips-1: l2, inside ips1-in, outside ips1-out (was: instance ips-1: l2 draining, inside ips1-in, outside ips1-out)
    install br-int: + path 5 (chain/acme-web/acme-hq gen 2): fw-1 > {ips-1, ips-2×3} > web-1
    flip br-int: ~ policy of site acme-hq: tcp port 80 and tcp port 443 by path 5 (chain/acme-web/acme-hq gen 2) (was: tcp port 80 and tcp port 443 by path 4 (chain/acme-web/acme-hq gen 1))
    ");
    let tagged = apply(&controller, &[ips("vlan", "", "      weight: 3\n")]).await.unwrap();
    insta::assert_snapshot!(lines(&tagged).join("\n"), @"
    install br-int: ~ instance ips-1: vlan, inside ips1-in, outside ips1-out (was: instance ips-1: l2, inside ips1-in, outside ips1-out)
    install br-int: ~ instance ips-2: vlan, inside ips2-in, outside ips2-out (was: instance ips-2: l2, inside ips2-in, outside ips2-out)
    install br-int: + path 6 (chain/acme-web/acme-hq gen 3): fw-1 > {ips-1, ips-2×3} > web-1, vlan 1
    flip br-int: ~ policy of site acme-hq: tcp port 80 and tcp port 443 by path 6 (chain/acme-web/acme-hq gen 3) (was: tcp port 80 and tcp port 443 by path 5 (chain/acme-web/acme-hq gen 2))
    ");
    let status = assert_converged(&controller, &world);
    assert_eq!(status.chains[0].sites[0].vlan.map(|vlan| vlan.get()), Some(1));
}

#[tokio::test(start_paused = true)]
async fn mistakes_are_shown_where_they_were_written() {
    let world = World::new(1);
    let controller = chained(&world).await;
    let bad =
        Source::new("bad.yaml", "apiVersion: catena/v1alpha1\nkind: Chain\nmetadata: {name: x}\nspec: {}\n");
    let error = apply(&controller, &[bad]).await.unwrap_err();
    let ApplyError::Invalid(diagnostics) = &error else { panic!("{error:?}") };
    assert!(diagnostics.iter().all(|diagnostic| diagnostic.labels[0].source == "bad.yaml"));
    assert!(error.help().is_some());

    let error = apply(&controller, &[chain(&["fw", "nothing"])]).await.unwrap_err();
    let ApplyError::Invalid(diagnostics) = &error else { panic!("{error:?}") };
    assert_eq!(
        (diagnostics[0].labels[0].source.as_str(), diagnostics[0].labels[0].line),
        ("acme-web.yaml", 7)
    );
}

#[tokio::test(start_paused = true)]
async fn one_resource_twice_in_a_request_is_refused() {
    let world = World::new(1);
    let controller = chained(&world).await;
    let error = apply(&controller, &[chain(&["fw"]), chain(&["ips"])]).await.unwrap_err();
    assert!(matches!(error, ApplyError::Invalid(_)), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn what_others_need_is_not_deleted() {
    let world = World::new(1);
    let controller = chained(&world).await;
    let error = delete(&controller, &["function/ips"]).await.unwrap_err();
    let ApplyError::StillNeeded(diagnostics) = &error else { panic!("{error:?}") };
    assert_eq!(diagnostics[0].labels[0].source, "acme-web.yaml");
    assert_eq!(diagnostics.len(), 1);
    assert_eq!(diagnostics[0].message, "chain/acme-web (acme-web.yaml:7) still needs servicefunction/ips");
    assert_eq!(diagnostics[0].help, "delete it first, or together");

    let error = delete(&controller, &["tenant/acme", "tenant/globex"]).await.unwrap_err();
    let messages: Vec<&str> = error.diagnostics().iter().map(|found| found.message.as_str()).collect();
    let needs = |user: &str, tenant: &str| {
        let start = format!("{user} (");
        let end = format!(") still needs tenant/{tenant}");
        messages.iter().any(|message| message.starts_with(&start) && message.ends_with(&end))
    };
    assert!(needs("chain/acme-web", "acme") && needs("site/acme-hq", "acme"), "{messages:#?}");
    assert!(needs("site/globex-hq", "globex"), "{messages:#?}");

    // What is needed although nobody names it.
    let error = delete(&controller, &["link/wan-a"]).await.unwrap_err();
    let messages: Vec<&str> = error.diagnostics().iter().map(|found| found.message.as_str()).collect();
    assert!(messages.iter().all(|message| message.contains(" still needs link/wan-a")), "{messages:#?}");
    delete(&controller, &["chain/acme-web", "function/ips"]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn deleting_leaves_nothing() {
    let world = World::new(1);
    let controller = chained(&world).await;
    world.element("br-int").set_live_flows(PathId(1), 7);
    let report = delete(&controller, &["chain/acme-web", "chain/no-such"]).await.unwrap();
    let outcomes: Vec<Outcome> = report.resources.iter().map(|change| change.outcome).collect();
    assert_eq!(outcomes, [Outcome::Deleted, Outcome::Absent]);
    assert!(world.installed().elements.is_empty());
    assert_converged(&controller, &world);
}

/// Of acme's chain; none is no chain.
type Functions = Option<&'static [&'static str]>;

/// From no chain to one, from one to another, and back to none.
const TRANSITIONS: [(Functions, Functions); 3] = [
    (None, Some(&["fw", "ips"])),
    (Some(&["fw", "ips", "web"]), Some(&["ips", "fw"])),
    (Some(&["fw"]), None),
];

#[tokio::test(start_paused = true)]
async fn every_failure_is_rolled_back_whole() {
    let elements = rendered(&everything()).elements;
    for fault in [Fault::Refuse, Fault::LoseAnswer] {
        for (from, to) in TRANSITIONS {
            let mut failed = 0;
            // One world for all: after each failure it is as it was before.
            let world = World::new(1);
            let controller = world.controller().await;
            apply(&controller, &inventory()).await.unwrap();
            for (element, nth) in elements.keys().flat_map(|element| (0..9).map(move |nth| (element, nth))) {
                world.elements().values().for_each(SimulatedElement::mend);
                move_to(&controller, from).await.unwrap();
                drained(&controller).await;
                let before = world.installed();
                world.element(element.as_str()).fail(nth, fault);
                let Err(error) = move_to(&controller, to).await else { continue };
                failed += 1;
                let ApplyError::Failed { rollback, .. } = &error else { panic!("{error:?}") };
                assert_eq!(*rollback, Rollback::Whole, "{error:?}");
                assert!(world.installed() == before, "{fault:?} of change {nth} on {element}");
                assert_converged(&controller, &world);
                assert_eq!(controller.events().last().unwrap().kind, EventKind::RolledBack);
            }
            world.elements().values().for_each(SimulatedElement::mend);
            move_to(&controller, to).await.unwrap();
            assert_converged(&controller, &world);
            assert!(failed >= 2, "{failed} failures from {from:?} to {to:?}");
        }
    }
}

async fn drained(controller: &Controller) {
    while !controller.status().draining.is_empty() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn move_to(controller: &Controller, functions: Functions) -> Result<ApplyReport, ApplyError> {
    match functions {
        Some(functions) => apply(controller, &[chain(functions)]).await,
        None => delete(controller, &["chain/acme-web"]).await,
    }
}

fn everything() -> Vec<Source> {
    inventory().into_iter().chain([chain(&["fw", "ips", "web"])]).collect()
}

#[tokio::test(start_paused = true)]
async fn numbers_of_a_change_that_was_rolled_back_are_not_given_again() {
    let world = World::new(1);
    let controller = chained(&world).await;
    world.element("br-int").fail(0, Fault::Refuse);
    let planned = plan_for(&controller, &[chain(&["ips", "fw"])]).await.unwrap();
    apply(&controller, &[chain(&["ips", "fw"])]).await.unwrap_err();
    let later = plan_for(&controller, &[chain(&["ips"])]).await.unwrap();
    let paths = |report: &ApplyReport| -> Vec<u32> {
        let changes = report.plan.0.iter().flat_map(|step| &step.changes);
        let new = changes.filter(|change| change.words.starts_with('+'));
        new.filter_map(|change| match change.change.object() {
            Object::Path(path) => Some(path.id.0),
            _ => None,
        })
        .collect()
    };
    assert!(paths(&later).iter().all(|path| !paths(&planned).contains(path)), "{planned:?} {later:?}");
}

#[tokio::test(start_paused = true)]
async fn what_no_driver_can_is_refused_before_anything_is_touched() {
    let world = World::new(1);
    world.forbid(Kind::Tunnel);
    let controller = world.controller().await;
    apply(&controller, &inventory()).await.unwrap();
    let error = apply(&controller, &[chain(&["fw"])]).await.unwrap_err();
    let ApplyError::Invalid(diagnostics) = &error else { panic!("{error:?}") };
    let messages: Vec<&str> = diagnostics.iter().map(|diagnostic| diagnostic.message.as_str()).collect();
    assert!(messages[0].contains("access-a") && messages[0].contains("tunnel"), "{messages:?}");
    assert_eq!(world.changes(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_element_that_is_not_there_stops_only_what_needs_it() {
    let world = World::new(1);
    let controller = world.controller().await;
    apply(&controller, &inventory()).await.unwrap();
    world.remove("access-a");
    let revision = world.store.revision().await.unwrap();
    let error = apply(&controller, &[chain(&["fw"])]).await.unwrap_err();
    assert!(
        matches!(&error, ApplyError::Unreachable { element, .. } if element.as_str() == "access-a"),
        "{error:?}"
    );
    assert_eq!((world.changes(), world.store.revision().await.unwrap()), (0, revision));

    apply(&controller, &[chain_of("globex", "globex-web", &["fw"])]).await.unwrap();
    assert!(world.changes() > 0);

    world.bring("access-a");
    tokio::time::sleep(Duration::from_millis(500)).await;
    apply(&controller, &[chain(&["fw"])]).await.unwrap();
    assert_converged(&controller, &world);
}

#[tokio::test(start_paused = true)]
async fn what_is_in_the_way_is_named_and_left_alone() {
    let world = World::new(1);
    let controller = world.controller().await;
    apply(&controller, &inventory()).await.unwrap();
    let foreign = rendered(&everything()).element(&"edge".parse().unwrap()).iter().next().unwrap().clone();
    world.element("edge").put_foreign(foreign);
    let error = apply(&controller, &[chain(&["fw"])]).await.unwrap_err();
    assert!(matches!(&error, ApplyError::Refused { element, .. } if element.as_str() == "edge"), "{error:?}");
    assert_eq!(world.changes(), 0);
}

/// Acme's chain by `web`, whose port is gone, and globex's by others.
async fn one_broken_function(world: &World) -> Controller {
    let controller = chained(world).await;
    apply(&controller, &[chain_of("globex", "globex-web", &["fw", "ips"])]).await.unwrap();
    let port = "web1-in".parse().unwrap();
    world.disturb(&"br-int".parse().unwrap(), |switch| switch.unplug(&port));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!controller.status().converged);
    controller
}

#[tokio::test(start_paused = true)]
async fn a_broken_function_stops_nobody_who_does_not_use_it() {
    let world = World::new(1);
    let controller = one_broken_function(&world).await;
    let planned = plan_for(&controller, &[chain_of("globex", "globex-web", &["ips"])]).await.unwrap();
    assert!(lines(&planned).iter().all(|line| !line.contains("web-1")), "{planned:#?}");
    let done = apply(&controller, &[chain_of("globex", "globex-web", &["ips"])]).await.unwrap();
    assert_eq!(lines(&planned), lines(&done));
    let chains = controller.status().chains;
    assert_eq!(chains.iter().map(|chain| chain.state).collect::<Vec<_>>(), [ChainState::Degraded; 2]);

    // What uses it is refused.
    let error = apply(&controller, &[chain_of("globex", "globex-web", &["web"])]).await.unwrap_err();
    assert!(
        matches!(&error, ApplyError::Refused { element, .. } if element.as_str() == "br-int"),
        "{error:?}"
    );

    delete(&controller, &["chain/globex-web"]).await.unwrap();
    world.element("br-int").plug(&"web1-in".parse().unwrap());
    controller.converged().await;
    let alone = [inventory(), vec![chain(&["fw", "ips", "web"])]].concat();
    assert_eq!(shape(&world.installed()), shape(&rendered(&alone)));
    assert_converged(&controller, &world);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_installed_is_said_whatever_is_asked() {
    let world = World::new(1);
    let controller = one_broken_function(&world).await;
    let same = [chain(&["fw", "ips", "web"])];
    for report in [plan_for(&controller, &same).await.unwrap(), apply(&controller, &same).await.unwrap()] {
        assert!(report.plan.0.is_empty());
        let [switch] = &report.not_installed[..] else { panic!("{report:?}") };
        assert_eq!((switch.element.as_str(), switch.state), ("br-int", ElementState::OutOfSync));
        assert!(switch.why.contains("no port web1-in") && switch.objects > 0, "{switch:?}");
    }
    // Also what was found out just now.
    world.element("edge").cut_off();
    let report = plan_for(&controller, &[chain_of("globex", "globex-web", &["fw"])]).await.unwrap();
    assert_eq!(report.not_installed.len(), 1);
    let report = delete(&controller, &["chain/globex-web"]).await.unwrap();
    let states: Vec<ElementState> = report.not_installed.iter().map(|element| element.state).collect();
    assert_eq!(states, [ElementState::OutOfSync, ElementState::Unreachable]);
}

#[tokio::test(start_paused = true)]
async fn elements_that_are_not_there_are_named_when_they_are_applied() {
    let world = World::new(1);
    for name in ["access-a", "edge"] {
        world.remove(name);
    }
    let controller = world.controller().await;
    for report in
        [plan_for(&controller, &inventory()).await.unwrap(), apply(&controller, &inventory()).await.unwrap()]
    {
        let found = report.not_installed.iter().map(|found| (found.element.as_str(), found.objects));
        assert_eq!(found.collect::<Vec<_>>(), [("access-a", 0), ("edge", 0)]);
        assert!(report.not_installed.iter().all(|found| found.state == ElementState::Unreachable));
    }
}

#[tokio::test(start_paused = true)]
async fn deleting_what_is_not_there_is_no_event() {
    let world = World::new(1);
    let controller = chained(&world).await;
    let seen = last_event(&controller);
    delete(&controller, &["chain/nope"]).await.unwrap();
    assert_eq!(kinds_of_events(&controller, seen), []);
}

#[tokio::test(start_paused = true)]
async fn the_chain_of_a_broken_function_can_be_deleted() {
    let world = World::new(1);
    let controller = one_broken_function(&world).await;
    delete(&controller, &["chain/acme-web"]).await.unwrap();
    let alone = [inventory(), vec![chain_of("globex", "globex-web", &["fw", "ips"])]].concat();
    assert_eq!(shape(&world.installed()), shape(&rendered(&alone)));
    assert_converged(&controller, &world);
}

#[tokio::test(start_paused = true)]
async fn a_change_beside_a_broken_function_is_rolled_back_whole() {
    let world = World::new(1);
    let controller = one_broken_function(&world).await;
    // Repairs are tried in between; what they may do is done.
    tokio::time::sleep(Duration::from_secs(20)).await;
    let before = world.installed();
    world.element("br-int").fail(1, Fault::LoseAnswer);
    let error = apply(&controller, &[chain_of("globex", "globex-web", &["ips"])]).await.unwrap_err();
    assert!(matches!(&error, ApplyError::Failed { rollback: Rollback::Whole, .. }), "{error:?}");
    assert!(world.installed() == before);
    let states: Vec<ChainState> = controller.status().chains.iter().map(|chain| chain.state).collect();
    assert_eq!(states, [ChainState::Degraded; 2]);
}

#[tokio::test(start_paused = true)]
async fn the_driver_of_an_element_in_use_does_not_change() {
    let world = World::new(1);
    let controller = chained(&world).await;
    let mut network = inventory();
    network[0].text = network[0].text.replace("netns: edge", "netns: other");
    let error = apply(&controller, &network).await.unwrap_err();
    assert!(
        matches!(&error, ApplyError::DriverInUse { element, .. } if element.as_str() == "edge"),
        "{error:?}"
    );
    delete(&controller, &["chain/acme-web"]).await.unwrap();
    apply(&controller, &network).await.unwrap();
    assert_converged(&controller, &world);
}

#[tokio::test(start_paused = true)]
async fn an_edit_keeps_the_old_path_until_its_flows_have_ended() {
    let world = World::new(1);
    let controller = chained(&world).await;
    let path = controller.status().chains[0].sites[0].path;
    let switch = world.element("br-int");
    switch.set_live_flows(path, 3);
    let report = apply(&controller, &[chain(&["ips"])]).await.unwrap();
    assert_eq!(report.draining[0].path, path);
    let old = |object: &Object| matches!(object, Object::Path(old) if old.id == path);

    tokio::time::sleep(Duration::from_secs(30)).await;
    let status = assert_converged(&controller, &world);
    assert_eq!((status.draining[0].path, status.draining[0].flows), (path, Some(3)));
    assert!(switch.installed().iter().any(old));

    // A restart leaves it alone, and so does another edit.
    let changes = world.changes();
    drop(controller);
    let controller = world.controller().await;
    assert_eq!(world.changes(), changes);
    apply(&controller, &[chain(&["web"])]).await.unwrap();
    assert!(switch.installed().iter().any(old));

    switch.set_live_flows(path, 0);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!switch.installed().iter().any(old));
    let status = assert_converged(&controller, &world);
    assert!(status.draining.is_empty());
    let kinds = kinds_of_events(&controller, 0);
    assert!(kinds.contains(&EventKind::Drained) && !kinds.contains(&EventKind::Drift), "{kinds:?}");
    let alone = [inventory(), vec![chain(&["web"])]].concat();
    assert_eq!(shape(&world.installed()), shape(&rendered(&alone)));
}

#[tokio::test(start_paused = true)]
async fn an_old_path_goes_when_its_time_is_over() {
    let world = World::new(1);
    let settings =
        Settings { drain: Duration::from_millis(30), drain_poll: Duration::from_millis(20), ..settings() };
    let controller = world.start(settings).await.unwrap();
    apply(&controller, &everything()).await.unwrap();
    let path = controller.status().chains[0].sites[0].path;
    world.element("br-int").set_live_flows(path, 3);
    apply(&controller, &[chain(&["ips"])]).await.unwrap();
    assert_eq!(controller.status().draining.len(), 1);
    // The deadline is one of the wall clock, since it must hold across restarts.
    std::thread::sleep(Duration::from_millis(40));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let status = assert_converged(&controller, &world);
    assert!(status.draining.is_empty());
    assert!(
        !world.element("br-int").installed().iter().any(|o| matches!(o, Object::Path(p) if p.id == path))
    );
}

#[tokio::test(start_paused = true)]
async fn requests_wait_for_each_other() {
    let world = World::new(1);
    let controller = chained(&world).await;
    for element in world.elements().values() {
        element.slow(Duration::from_millis(10));
    }
    let orders = [["fw", "ips"], ["ips", "fw"], ["web", "fw"], ["fw", "web"]];
    let requests = orders.map(|functions| {
        let controller = controller.clone();
        tokio::spawn(async move { apply(&controller, &[chain(&functions)]).await })
    });
    for request in requests {
        request.await.unwrap().unwrap();
    }
    let status = assert_converged(&controller, &world);
    assert_eq!(status.chains[0].sites[0].generation, 5);
}

#[tokio::test(start_paused = true)]
async fn another_controller_on_the_store_takes_it_away() {
    let world = World::new(1);
    let first = chained(&world).await;
    let second = world.controller().await;
    let error = apply(&first, &[chain(&["fw"])]).await.unwrap_err();
    assert!(matches!(error, ApplyError::Store(_)), "{error:?}");
    apply(&second, &[chain(&["fw"])]).await.unwrap();
    assert_converged(&second, &world);
    assert_eq!(world.store.get("control/starts").await.unwrap().unwrap().value, b"2");
    assert!(world.store.revision().await.unwrap() > Revision(3));
}
