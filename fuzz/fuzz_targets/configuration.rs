//! A configuration file. Whatever it says, it is answered, and no secret is told.
#![no_main]

use std::path::Path;

use bearerd::config;
use libfuzzer_sys::fuzz_target;

const SECRET: &str = "hunter2-canary-hunter2";

fuzz_target!(|text: &str| {
    if text.contains("hunter2") {
        return;
    }
    let environment = |_: &str| Some(SECRET.to_owned());
    let shown = match config::parse("fuzz.toml", text, &environment, Path::new("/nonexistent")) {
        Ok(config) => {
            let warnings: String = config.warnings.iter().map(|warning| warning.render(false)).collect();
            format!("{warnings}{config:?}")
        }
        Err(errors) => {
            assert!(errors.count() > 0);
            format!("{}{errors:?}", errors.render(false))
        }
    };
    assert!(!shown.is_empty() && !shown.contains(SECRET));
});
