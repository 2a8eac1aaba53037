use super::*;

fn environment(variables: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    let owned = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    from_environment(owned)
}

fn flags(arguments: &[&str]) -> Settings {
    cli::parse_from(&[&["odradek"], arguments].concat()).unwrap().1
}

#[test]
fn without_settings_the_data_is_in_the_working_folder() {
    let config = Config::from_settings(flags(&[])).unwrap();
    assert_eq!(config.listen, "127.0.0.1:9092");
    assert_eq!(config.store, "file:./odradek-data/objects");
    assert_eq!(config.log, "file:./odradek-data/log");
}

#[test]
fn serve_is_the_default_command() {
    assert_eq!(flags(&["serve", "--zone", "a"]), flags(&["--zone", "a"]));
}

#[test]
fn commands_that_look_take_the_places_of_a_broker_wherever_they_stand() {
    let places = ["--data", "d", "--store", "s3://bucket"];
    let expected = Settings { log_level: Some("warn".to_owned()), ..flags(&places) };
    for (before, behind) in [("fsck", "--deep"), ("inspect", "topics")] {
        assert_eq!(flags(&[&[before, behind], &places[..]].concat()), expected);
        assert_eq!(flags(&[&[before], &places[..], &[behind]].concat()), expected);
        assert_eq!(flags(&[&places[..], &[before, behind]].concat()), expected);
        assert!(cli::parse_from(&["odradek", before, behind, "--listen", "h:1"]).is_err());
    }
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let file: Settings =
        toml::from_str("listen = \"f:1\"\nzone = \"f\"\nlinger-ms = 7\ndata = \"f\"").unwrap();
    let environment = environment(&[
        ("ODRADEK_LISTEN", "e:2"),
        ("ODRADEK_ZONE", "17"),
        ("ODRADEK_MEMORY", "2000000"),
        ("PATH", "/bin"),
    ]);
    let given = flags(&["--listen", "c:3"]).over(environment.unwrap()).over(file);
    let config = Config::from_settings(given).unwrap();
    assert_eq!(config.listen, "c:3");
    assert_eq!(config.zone.as_deref(), Some("17"));
    assert_eq!(config.memory_bytes, 2_000_000);
    assert_eq!(config.linger, Duration::from_millis(7));
    assert_eq!(config.store, "file:f/objects");
}

#[test]
fn keys_that_nobody_knows_are_refused_by_name() {
    let error = environment(&[("ODRADEK_LISTN", "x")]).unwrap_err();
    assert!(error.to_string().contains("listn"), "{error}");
    let error = toml::from_str::<Settings>("lissten = \"x\"").unwrap_err();
    assert!(one_line(&error).contains("lissten"), "{error}");
    assert!(cli::parse_from(&["odradek", "--lissten", "x"]).is_err());
}

#[test]
fn values_that_make_no_sense_are_refused() {
    for arguments in [
        &["--listen", "nowhere"][..],
        &["--advertise", "host:99999"],
        &["--request-bytes-max", "1"],
        &["--cluster", "a/b"],
        &["--disk-cache", "d", "--disk-cache-bytes", "1000000"],
        &["--disk-cache-bytes", "1000000000"],
    ] {
        assert!(Config::from_settings(flags(arguments)).is_err(), "{arguments:?}");
    }
}

#[test]
fn nobody_is_shown_metrics_unless_somebody_says_where() {
    assert_eq!(Config::from_settings(flags(&[])).unwrap().metrics_listen, None);
    let given = flags(&["--metrics-listen", "0.0.0.0:9464"]);
    let config = Config::from_settings(given).unwrap();
    assert_eq!(config.metrics_listen.as_deref(), Some("0.0.0.0:9464"));
    let given = environment(&[("ODRADEK_METRICS_LISTEN", "nowhere")]).unwrap();
    assert!(Config::from_settings(given).unwrap_err().to_string().contains("\"nowhere\""));
}

#[test]
fn nothing_is_kept_on_disk_unless_somebody_says_where() {
    assert_eq!(Config::from_settings(flags(&[])).unwrap().disk_cache, None);
    let kept = |bytes_max| Some(DiskCacheConfig { folder: "7".into(), bytes_max });
    let given = environment(&[("ODRADEK_DISK_CACHE", "7")]).unwrap();
    assert_eq!(Config::from_settings(given.clone()).unwrap().disk_cache, kept(10 << 30));
    let given = flags(&["--disk-cache-bytes", "100000000"]).over(given);
    assert_eq!(Config::from_settings(given).unwrap().disk_cache, kept(100_000_000));
}
