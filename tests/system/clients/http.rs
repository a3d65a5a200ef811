//! curl and h2load, which speak HTTP/1.1 and HTTP/2, to nginx, which speaks one of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use mesh_tests::backends::local;
use mesh_tests::cluster::path;
use mesh_tests::process::{Process, Ran, output, run};
use mesh_tests::{Needs, eventually, has};

use super::{APP, BATCH, CALLED, Pair, gets_there};
use crate::turn;

/// What moves each way.
const MIB: u64 = 64;
const REQUESTS: u32 = 2000;

/// A pair with nginx behind, which gives the files below `folder`, and keeps what is uploaded there.
struct Site {
    pair: Pair,
    folder: PathBuf,
    _nginx: Process,
}

impl Site {
    /// With nginx speaking HTTP/2 and nothing else if `protocol` says so.
    fn start(protocol: &str) -> Self {
        let pair = Pair::start(protocol, "");
        let folder = pair.mesh.folder("nginx");
        for inside in ["files", "uploads"] {
            fs::create_dir(folder.join(inside)).unwrap();
        }
        fs::write(folder.join("files/small"), "small").unwrap();
        let spoken = if protocol == "http2" { " http2" } else { "" };
        fs::write(folder.join("nginx.conf"), config(&folder, spoken)).unwrap();
        let mut command = pair.back.command("nginx");
        command.args(["-p", path(&folder), "-c", path(&folder.join("nginx.conf"))]);
        let nginx = Process::start(command, &folder.join("log"));
        eventually("nginx listens", Duration::from_secs(10), || {
            pair.back.run(|| std::net::TcpStream::connect(local(APP)).ok()).map(drop)
        });
        let site = Self { pair, folder, _nginx: nginx };
        gets_there("a call", || site.curl(CALLED, &["-f", "--http1.1"], "small"));
        site
    }

    /// curl on the callers' host; it prints the version and the status of the answer.
    fn curl(&self, port: u16, options: &[&str], page: &str) -> Ran {
        let mut command = self.pair.front.command("curl");
        let told = "%{http_version} %{http_code}";
        command.args(["-sS", "--noproxy", "*", "-o", path(&self.got()), "-w", told]);
        command.args(options).arg(format!("http://127.0.0.1:{port}/{page}"));
        output(command, Duration::from_secs(120))
    }

    /// Where curl puts what it gets.
    fn got(&self) -> PathBuf {
        self.folder.join("got")
    }

    /// Moves a file there and one back by `version` of HTTP, and compares what arrived.
    fn moves_files(&self, version: &str, option: &str) {
        let (down, up) = (self.folder.join("files/large"), self.folder.join("to-send"));
        for file in [&down, &up] {
            noise(file);
        }
        let began = Instant::now();
        let ran = self.curl(CALLED, &[option], "large").good();
        let download = began.elapsed();
        assert_eq!(ran.stdout, format!("{version} 200"), "{ran:?}");
        assert_eq!(sha256(&self.got()), sha256(&down), "downloaded by HTTP/{version}");
        let began = Instant::now();
        let ran = self.curl(CALLED, &[option, "-T", path(&up)], "upload").good();
        let upload = began.elapsed();
        assert_eq!(ran.stdout, format!("{version} 200"), "{ran:?}");
        let arrived = self.uploaded();
        assert_eq!(sha256(&arrived), sha256(&up), "uploaded by HTTP/{version}");
        fs::remove_file(arrived).unwrap();
        let rate = |took: Duration| MIB as f64 / took.as_secs_f64();
        println!(
            "measured: {MIB} MiB by HTTP/{version}: {:.0} MiB/s down, {:.0} up",
            rate(download),
            rate(upload)
        );
    }

    /// The one file that nginx kept.
    fn uploaded(&self) -> PathBuf {
        let files = fs::read_dir(self.folder.join("uploads")).unwrap();
        let files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        files[0].clone()
    }

    /// Who may not call is told so, by the version of HTTP that it speaks.
    fn denies(&self, version: &str, option: &str) {
        let ran = self.curl(BATCH, &[option], "small").good();
        assert_eq!(ran.stdout, format!("{version} 403"), "{ran:?}");
    }
}

/// nginx that keeps the bodies of requests to `/upload`: it writes them before it asks itself.
fn config(folder: &Path, spoken: &str) -> String {
    let at = folder.display();
    let kinds = ["proxy", "fastcgi", "uwsgi", "scgi"];
    let kinds: String =
        kinds.iter().map(|kind| format!("{kind}_temp_path {at}/{kind};\n")).collect();
    format!(
        "daemon off; master_process off; user root; pid {at}/pid; error_log stderr warn;\n\
         events {{ worker_connections 1024; }}\nhttp {{\naccess_log off; client_max_body_size 0;\n\
         {kinds}client_body_temp_path {at}/uploads;\n\
         server {{ listen 127.0.0.1:{APP}{spoken}; root {at}/files; location = /upload {{\n\
         client_body_in_file_only on; proxy_pass_request_body off;\n\
         proxy_set_header content-length \"\"; proxy_method GET;\n\
         proxy_pass http://127.0.0.1:{inner}/; }} }}\n\
         server {{ listen 127.0.0.1:{inner}; return 200 kept; }}\n}}\n",
        inner = APP + 1,
    )
}

/// Fills a file with what no two runs have in common.
fn noise(file: &Path) {
    let mut command = Command::new("dd");
    command.args(["if=/dev/urandom", "bs=1M", "status=none", "iflag=fullblock"]);
    command.args([format!("count={MIB}"), format!("of={}", file.display())]);
    let (code, said) = run(command, Duration::from_secs(60));
    assert_eq!(code, Some(0), "dd: {said}");
}

fn sha256(file: &Path) -> String {
    let mut command = Command::new("sha256sum");
    command.arg(file);
    let ran = output(command, Duration::from_secs(60)).good();
    ran.stdout.split(' ').next().unwrap().to_owned()
}

#[test]
fn curl_moves_files_to_and_from_http1() {
    let _turn = turn();
    let needs = ["ip", "nsenter", "curl", "nginx"].map(Needs::Program);
    if !has(&[&[Needs::Root][..], &needs].concat()) {
        return;
    }
    let site = Site::start("http");
    for (version, option) in [("1.1", "--http1.1"), ("2", "--http2-prior-knowledge")] {
        site.moves_files(version, option);
        site.denies(version, option);
    }
}

#[test]
fn curl_and_h2load_call_http2() {
    let _turn = turn();
    let needs = ["ip", "nsenter", "curl", "nginx", "h2load"].map(Needs::Program);
    if !has(&[&[Needs::Root][..], &needs].concat()) {
        return;
    }
    let site = Site::start("http2");
    for (version, option) in [("1.1", "--http1.1"), ("2", "--http2-prior-knowledge")] {
        site.moves_files(version, option);
        site.denies(version, option);
    }
    let mut command = site.pair.front.command("h2load");
    command.args(["-n", &REQUESTS.to_string(), "-c", "4", "-m", "32"]);
    command.arg(format!("http://127.0.0.1:{CALLED}/small"));
    let ran = output(command, Duration::from_secs(120)).good();
    let done = format!("{REQUESTS} succeeded, 0 failed, 0 errored, 0 timeout");
    assert!(ran.stdout.contains(&done), "{ran:?}");
    let good = format!("status codes: {REQUESTS} 2xx, 0 3xx, 0 4xx, 0 5xx");
    assert!(ran.stdout.contains(&good), "{ran:?}");
    let line = ran.stdout.lines().find(|line| line.starts_with("finished in")).unwrap();
    println!("measured: h2load, {line}");
}
