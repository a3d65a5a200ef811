//! A service whose own port can be reached from other hosts is reached past every rule: the agent
//! finds it, and the status says so until it is mended.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use mesh_tests::cluster::Mesh;
use mesh_tests::net::{Host, Net};
use mesh_tests::{Needs, eventually, has};

use crate::turn;

const ORDERS: &str = "[instance.orders-1]\nservice = \"orders\"\nport = 8081\n";

#[test]
fn a_port_around_the_agent_is_found_and_named_until_it_is_closed() {
    let _turn = turn();
    if !has(&[Needs::Root]) || !has(&["ip", "nsenter", "curl"].map(Needs::Program)) {
        return;
    }
    let mut mesh = Mesh::start(Net::new(&["ctl-1", "back"]), &["ctl-1"]);
    let (other, back) = (mesh.net.host("ctl-1").clone(), mesh.net.host("back").clone());
    let around = SocketAddr::new(back.ip, 8081);
    let open = listen(&back, "0.0.0.0:8081");
    mesh.add_agent("back", "orders,cache", ORDERS);
    assert!(reaches(&other, around), "the test's own port is not exposed");
    exposed(&mesh, &format!("back: orders-1 of service orders answers at {around} "));

    drop(open);
    let closed = listen(&back, "127.0.0.1:8081");
    assert!(!reaches(&other, around), "the port is still exposed");
    mesh.wait_synced();
    let status = mesh.cli(&["status"]).good().stdout;
    assert!(!status.contains(":8081"), "{status}");
    drop(closed);

    declared_on_the_hosts_address(&mesh, &back);
}

/// An instance that declares an address of the host cannot be protected, whether it runs or not.
fn declared_on_the_hosts_address(mesh: &Mesh, back: &Host) {
    let file = mesh.agent("back").dir.join("services.d/cache.toml");
    let address = SocketAddr::new(back.ip, 6379);
    let text = format!(
        "[instance.cache-1]\nservice = \"cache\"\nport = 6379\naddress = \"{}\"\n",
        back.ip
    );
    fs::write(&file, &text).unwrap();
    exposed(mesh, &format!("back: cache-1 of service cache answers at {address} "));
    fs::write(&file, text.replace(&back.ip.to_string(), "127.0.0.1")).unwrap();
    mesh.wait_synced();
}

/// Waits until the status ends with 1 and says `text`.
fn exposed(mesh: &Mesh, text: &str) {
    eventually(&format!("the status says {text:?}"), Duration::from_secs(15), || {
        let ran = mesh.cli(&["status"]);
        (ran.code == Some(1) && ran.stdout.contains(text)).then_some(())
    });
}

fn listen(host: &Host, address: &str) -> TcpListener {
    host.run(|| TcpListener::bind(address)).unwrap()
}

fn reaches(host: &Host, address: SocketAddr) -> bool {
    host.run(|| TcpStream::connect_timeout(&address, Duration::from_secs(2))).is_ok()
}
