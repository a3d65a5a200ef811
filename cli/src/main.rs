//! `mesh`: see the library.

use std::process::ExitCode;

use mesh_cli::args;
use mesh_cli::output::note;

fn main() -> ExitCode {
    let cli = match args::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(code) => return ExitCode::from(code),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(why) => {
            note(&format!("error: cannot start: {why}"));
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(mesh_cli::run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(text) = error.text() {
                note(&text);
            }
            ExitCode::from(error.exit() as u8)
        }
    }
}
