//! `mesh-long`: runs a long form of the tests and writes its result.

#![expect(clippy::expect_used, reason = "a test's tool fails by panicking")]

mod cleanup;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;

use mesh_tests::long::args::Args;
use mesh_tests::long::report::{self, Began};
use mesh_tests::long::{Outcome, chaos, scale, soak, world};
use mesh_tests::{Needs, has};

const USAGE: &str = "usage: mesh-long soak  [--minutes N] [--rate N] [--clock N] [--out FILE]
       mesh-long chaos [--minutes N] [--rate N] [--seed N] [--out FILE]
       mesh-long scale [--agents N] [--services N] [--servers N] [--rounds N] [--minutes N]
                       [--away SECONDS] [--out FILE]";

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let name = words.next().unwrap_or_default();
    let form = Args::parse(words).and_then(|args| Form::new(&name, args));
    match form {
        Ok(form) => form.run(),
        Err(why) => {
            eprintln!("{why}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// A long form to run, and where its result goes.
struct Form {
    name: String,
    out: PathBuf,
    needs: Vec<Needs>,
    run: Box<dyn Fn() -> Outcome>,
}

impl Form {
    fn new(name: &str, mut args: Args) -> Result<Self, String> {
        let out = args.text("out", &format!("tests/results/{name}.json")).into();
        let (needs, run): (Vec<&[Needs]>, Box<dyn Fn() -> Outcome>) = match name {
            "soak" => {
                let options = soak::Options::from_args(&mut args)?;
                (vec![world::NEEDS], Box::new(move || soak::run(&options)))
            }
            "chaos" => {
                let options = chaos::Options::from_args(&mut args)?;
                (vec![world::NEEDS, chaos::NEEDS], Box::new(move || chaos::run(&options)))
            }
            "scale" => {
                let options = scale::Options::from_args(&mut args)?;
                (vec![scale::NEEDS], Box::new(move || scale::run(&options)))
            }
            _ => return Err(format!("no long form is called {name:?}")),
        };
        args.end()?;
        Ok(Self { name: name.to_owned(), out, needs: needs.concat(), run })
    }

    fn run(self) -> ExitCode {
        if !has(&self.needs) {
            return ExitCode::from(2);
        }
        let began = Began::now();
        let (name, out, at) = (self.name.clone(), self.out.clone(), began.clone());
        // Its result is written whatever happens, and no process or namespace is left behind.
        cleanup::on_panic(move |why| {
            let failures = vec![format!("broken off: {why}")];
            let outcome = Outcome { failures, ..Outcome::default() };
            drop(report::write(&out, &name, &at, &outcome));
        });
        let Ok(outcome) = catch_unwind(AssertUnwindSafe(|| (self.run)())) else {
            return ExitCode::FAILURE;
        };
        report::write(&self.out, &self.name, &began, &outcome).expect("the result's file");
        if outcome.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
