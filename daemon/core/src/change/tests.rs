//! Plans as text: `Start /a /b | Scale /b | Restart /a`.

use super::*;
use crate::app::PortDefinition;
use crate::task::Program;

const NOW: Timestamp = Timestamp(1_704_103_200_000);

fn id(text: &str) -> AppId {
    AppId::parse(text).unwrap()
}

/// `/a` alone, `/a<-/b,/c` for one that depends on others.
fn app(text: &str) -> App {
    let (path, needs) = text.split_once("<-").unwrap_or((text, ""));
    let mut app = App::new(id(path), Program::Shell("true".into()));
    app.dependencies = needs.split(',').filter(|need| !need.is_empty()).map(str::to_owned).collect();
    app
}

fn with_ports(mut app: App, ports: &[u16]) -> App {
    let port = |port: &u16| PortDefinition { port: *port, protocol: "tcp".into(), name: None, labels: BTreeMap::new() };
    app.ports = ports.iter().map(port).collect();
    app
}

fn put(app: App) -> (AppId, Edit) {
    (app.id.clone(), Edit::Put(Box::new(app)))
}

fn request(edits: impl IntoIterator<Item = (AppId, Edit)>, deployment: &str) -> Request {
    Request {
        edits: edits.into_iter().collect(),
        force: false,
        preselected: BTreeSet::new(),
        deployment: DeploymentId::new(deployment),
        now: NOW,
    }
}

/// Applies a plan and finishes its deployment.
fn settle(state: &mut ClusterState, plan: &Plan) {
    assert_eq!(state.apply(&plan.command()).result, Ok(()));
    for from_step in 0..plan.deployment.steps.len() {
        let id = plan.deployment.id.clone();
        assert_eq!(state.apply(&Command::AdvanceDeployment { id, from_step, at: NOW }).result, Ok(()));
    }
}

fn settled(apps: impl IntoIterator<Item = App>) -> ClusterState {
    let mut state = ClusterState::default();
    let plan = plan(&state, request(apps.into_iter().map(put), "first")).unwrap();
    settle(&mut state, &plan);
    state
}

fn words(plan: &Plan) -> String {
    let step = |actions: &Vec<Action>| {
        let name = |kind| format!("{kind:?}").replace("Application", "");
        let mut words: Vec<String> = Vec::new();
        for action in actions {
            let kind = name(action.kind);
            if !words.contains(&kind) {
                words.push(kind);
            }
            words.push(action.app.to_string());
        }
        words.join(" ")
    };
    plan.deployment.steps.iter().map(step).collect::<Vec<_>>().join(" | ")
}

fn ports(plan: &Plan, app: &str) -> Vec<u16> {
    plan.app(&id(app)).unwrap().ports.iter().map(|port| port.port).collect()
}

#[test]
fn steps_follow_the_dependencies() {
    let many = |texts: &[&str]| -> Vec<App> { texts.iter().map(|text| app(text)).collect() };
    for (before, after, expect) in [
        (vec![], vec!["/a"], "Start /a | Scale /a"),
        (vec![], vec!["/web<-/db", "/db"], "Start /db /web | Scale /db | Scale /web"),
        // A group stands for every app in it.
        (
            vec![],
            vec!["/p/db/x<-/p/base", "/p/base", "/p/web<-/p/db"],
            "Start /p/base /p/db/x /p/web | Scale /p/base | Scale /p/db/x | Scale /p/web",
        ),
        // What does not change orders what does, and is not touched itself.
        (vec!["/b<-/c", "/c"], vec!["/a<-/b"], "Start /a | Scale /a"),
        (vec!["/b<-/c", "/c"], vec!["/a<-/b", "/c2", "/d<-/c2"], "Start /a /c2 /d | Scale /c2 | Scale /d | Scale /a"),
        // Nobody waits for what is not there.
        (vec![], vec!["/a<-/none", "/b"], "Start /a /b | Scale /a /b"),
        // The names of groups end at a slash.
        (vec![], vec!["/a<-/g", "/gg/x", "/g/x"], "Start /a /g/x /gg/x | Scale /g/x /gg/x | Scale /a"),
    ] {
        let state = settled(many(&before));
        let plan = plan(&state, request(many(&after).into_iter().map(put), "d")).unwrap();
        assert_eq!(words(&plan), expect, "{after:?}");
    }
}

#[test]
fn circles_are_refused_wherever_they_close() {
    for (before, after) in [
        (vec![], vec!["/a<-/a"]),
        (vec![], vec!["/a<-/b", "/b<-/a"]),
        (vec!["/a<-/b"], vec!["/b<-/a"]),
        (vec!["/a<-/g"], vec!["/g/x<-/a"]),
        (vec![], vec!["/g/x<-/g"]),
        (vec![], vec!["/x<-/"]),
    ] {
        let state = settled(before.iter().map(|text| app(text)));
        let refused = plan(&state, request(after.iter().map(|text| put(app(text))), "d"));
        assert!(matches!(refused, Err(Refused::Cycle(_))), "{before:?} {after:?}: {refused:?}");
    }
}

#[test]
fn a_long_chain_of_dependencies_does_not_exhaust_the_stack() {
    let chain = (0..20_000).map(|n| put(app(&format!("/a{n}<-/a{}", n + 1))));
    let plan = plan(&ClusterState::default(), request(chain, "d")).unwrap();
    assert_eq!(plan.deployment.steps.len(), 20_001);
}

#[test]
fn each_change_takes_its_own_steps_and_stamps() {
    let state = settled([app("/a"), app("/b")]);
    let first = state.apps["/a"].app.clone();
    let changed = |edit: &dyn Fn(&mut App)| {
        let mut app = first.clone();
        edit(&mut app);
        put(app)
    };
    let stamps = |plan: &Plan| {
        let version = plan.deployment.version;
        plan.app(&id("/a"))
            .map(|app| (app.version == version, app.last_scaling_at == version, app.last_config_change_at == version))
    };
    for (edit, expect_words, expect_stamps) in [
        (changed(&|_| {}), "", None),
        (changed(&|app| app.instances = 3), "Scale /a", Some((true, true, false))),
        (changed(&|app| app.user = Some("x".into())), "Restart /a", Some((true, true, true))),
        (changed(&|app| (app.user, app.instances) = (Some("x".into()), 0)), "Scale /a", Some((true, true, true))),
        ((id("/a"), Edit::Restart), "Restart /a", Some((true, false, true))),
        ((id("/a"), Edit::Remove), "Stop /a", None),
    ] {
        let plan = plan(&state, request([edit.clone()], "d")).unwrap();
        assert_eq!((words(&plan).as_str(), stamps(&plan)), (expect_words, expect_stamps), "{edit:?}");
        assert!(plan.deployment.version > state.last_version);
    }
    for edit in [Edit::Remove, Edit::Restart] {
        assert_eq!(plan(&state, request([(id("/none"), edit)], "d")), Err(Refused::Unknown(id("/none"))));
    }
}

#[test]
fn service_ports_are_given_once_and_kept_by_position() {
    let mut state = settled([with_ports(app("/a"), &[0, 0]), with_ports(app("/b"), &[10003])]);
    assert_eq!(state.apps["/a"].app.ports.iter().map(|port| port.port).collect::<Vec<_>>(), [10000, 10001]);

    // Kept by position; the third gets the lowest that nobody has, here or in the same request.
    let more = plan(&state, request([put(with_ports(app("/a"), &[0, 0, 0, 0])), put(with_ports(app("/c"), &[10002, 0]))], "d"));
    let more = more.unwrap();
    assert_eq!(ports(&more, "/a"), [10000, 10001, 10004, 10005]);
    assert_eq!(ports(&more, "/c"), [10002, 10006]);

    // One asked for by number is not given again at the position that had it.
    let moved = plan(&state, request([put(with_ports(app("/a"), &[0, 10000]))], "d")).unwrap();
    assert_eq!(ports(&moved, "/a"), [10002, 10000]);

    // Asking for what is there changes nothing, however it is asked.
    for same in [[0, 0], [10000, 10001], [0, 10001]] {
        assert_eq!(plan(&state, request([put(with_ports(app("/a"), &same))], "d")).unwrap().changes, []);
    }

    settle(&mut state, &more);
    let all = usize::from(SERVICE_PORTS.end() - SERVICE_PORTS.start()) + 1;
    let rest = vec![0; all - 7];
    let full = plan(&state, request([put(with_ports(app("/full"), &rest))], "e")).unwrap();
    settle(&mut state, &full);
    let none = plan(&state, request([put(with_ports(app("/none"), &[0]))], "f"));
    assert_eq!(none, Err(Refused::NoServicePort(id("/none"))));
}

#[test]
fn a_path_is_an_app_or_a_group() {
    let state = settled([app("/prod/web"), app("/a")]);
    let check = |texts: &[&str]| plan(&state, request(texts.iter().map(|text| put(app(text))), "d"));
    assert!(check(&["/prod/db", "/prod-2", "/pro"]).is_ok());
    for (texts, taken) in [(vec!["/prod"], "/prod"), (vec!["/a/b/c"], "/a"), (vec!["/x/y", "/x"], "/x")] {
        let refused = check(&texts);
        assert!(matches!(&refused, Err(Refused::AppAndGroup { taken: path, .. }) if path.as_str() == taken), "{refused:?}");
    }
    // What goes makes room for what comes.
    assert!(plan(&state, request([put(app("/a/b")), (id("/a"), Edit::Remove)], "d")).is_ok());
}

#[test]
fn what_a_deployment_holds_is_locked() {
    let mut state = settled([app("/a"), app("/b")]);
    let mut bigger = app("/a");
    bigger.instances = 2;
    let scale = plan(&state, request([put(bigger.clone())], "scale")).unwrap();
    assert_eq!(state.apply(&scale.command()).result, Ok(()));

    bigger.instances = 3;
    assert_eq!(plan(&state, request([put(bigger.clone())], "d")), Err(Refused::Locked(vec![DeploymentId::new("scale")])));
    assert!(plan(&state, request([(id("/b"), Edit::Restart)], "d")).is_ok(), "others go on");
    // What changes nothing touches nothing.
    bigger.instances = 2;
    assert!(plan(&state, request([put(bigger)], "d")).is_ok());
    assert!(plan(&state, Request { force: true, ..request([(id("/a"), Edit::Remove)], "d") }).is_ok());
}

#[test]
fn reverting_puts_back_what_was_changed_and_nothing_else() {
    let mut state = settled([app("/a"), app("/gone"), app("/other")]);
    let original = state.apps["/a"].app.clone();
    let mut changed = app("/a");
    changed.user = Some("x".into());
    let change = plan(&state, request([put(changed), put(app("/new")), (id("/gone"), Edit::Remove)], "change")).unwrap();
    assert_eq!(words(&change), "Stop /gone | Start /new | Restart /a Scale /new");
    assert_eq!(state.apply(&change.command()).result, Ok(()));
    let other = plan(&state, request([(id("/other"), Edit::Restart)], "other")).unwrap();
    settle(&mut state, &other);

    let edits = edits_to_revert(&state, &state.deployments["change"]);
    let back = plan(&state, Request { force: true, ..request(edits, "back") }).unwrap();
    assert_eq!(words(&back), "Stop /new | Start /gone | Restart /a Scale /gone");
    let events = state.apply(&back.command()).events;
    assert!(matches!(&events[0].kind, crate::event::EventKind::DeploymentFailed(failed) if failed.id.as_str() == "change"));
    assert!(state.apps["/a"].app.same_config(&original));
    assert!(state.apps["/a"].app.version > original.version, "an old definition is a new version");
}
