//! The columns that queries are checked against: the same for both databases.

use diesel::table;

table! {
    task_specs (hash) {
        hash -> Binary,
        uses -> BigInt,
        body -> Text,
    }
}

table! {
    tasks (id) {
        id -> BigInt,
        status -> Integer,
        priority -> Integer,
        attempt -> Integer,
        fence -> BigInt,
        failures -> Integer,
        lost -> Integer,
        cancelling -> Integer,
        created_at -> BigInt,
        ready_at -> BigInt,
        assigned_at -> Nullable<BigInt>,
        started_at -> Nullable<BigInt>,
        settled_at -> Nullable<BigInt>,
        group_name -> Text,
        worker -> Nullable<Text>,
        spec -> Binary,
        title -> Text,
        segments -> Text,
        exit_code -> Nullable<Integer>,
        signal -> Nullable<Integer>,
        error -> Nullable<Text>,
        result -> Nullable<Text>,
        outputs -> Nullable<Text>,
        run -> Nullable<BigInt>,
        node -> Nullable<Text>,
        waits -> Integer,
        version -> Integer,
    }
}

table! {
    checkpoints (id) {
        id -> BigInt,
        task -> BigInt,
        attempt -> Integer,
        fence -> BigInt,
        number -> BigInt,
        json -> Integer,
        bytes -> BigInt,
        created_at -> BigInt,
        name -> Text,
        git_commit -> Nullable<Text>,
        git_ref -> Nullable<Text>,
        sha256 -> Nullable<Binary>,
        data -> Nullable<Binary>,
        memory -> Nullable<Text>,
    }
}

table! {
    checkpoint_choices (task) {
        task -> BigInt,
        checkpoint -> Nullable<BigInt>,
    }
}

table! {
    task_memory (task, name) {
        task -> BigInt,
        name -> Text,
        value -> Text,
        expires_at -> Nullable<BigInt>,
    }
}

table! {
    run_memory (run, name) {
        run -> BigInt,
        name -> Text,
        value -> Text,
        expires_at -> Nullable<BigInt>,
    }
}

table! {
    task_versions (task, version) {
        task -> BigInt,
        version -> Integer,
        spec -> Binary,
        created_at -> BigInt,
        title -> Text,
        reason -> Text,
        author -> Text,
    }
}

table! {
    task_relationships (predecessor, successor, relation) {
        predecessor -> BigInt,
        successor -> BigInt,
        relation -> Integer,
        created_at -> BigInt,
    }
}

table! {
    run_definitions (hash) {
        hash -> Binary,
        body -> Text,
    }
}

table! {
    runs (id) {
        id -> BigInt,
        status -> Integer,
        revision -> Integer,
        first_task -> BigInt,
        nodes -> Integer,
        parent -> Nullable<BigInt>,
        created_at -> BigInt,
        settled_at -> Nullable<BigInt>,
        definition -> Binary,
        mode -> Text,
        name -> Text,
        error -> Nullable<Text>,
        inputs -> Text,
        stopping -> Integer,
        version -> Integer,
    }
}

table! {
    run_ranges (run, node) {
        run -> BigInt,
        node -> Integer,
        task -> BigInt,
        count -> Integer,
    }
}

table! {
    run_versions (run, version) {
        run -> BigInt,
        version -> Integer,
        definition -> Binary,
        created_at -> BigInt,
        inputs -> Text,
        reason -> Text,
        author -> Text,
    }
}

table! {
    task_outdated (task) {
        task -> BigInt,
    }
}

table! {
    task_blobs (id) {
        id -> BigInt,
        task -> BigInt,
        attempt -> Integer,
        role -> Integer,
        path -> Text,
        sha256 -> Binary,
        bytes -> BigInt,
        executable -> Integer,
    }
}

table! {
    spec_blobs (spec, sha256) {
        spec -> Binary,
        sha256 -> Binary,
    }
}

table! {
    task_rounds (task) {
        task -> BigInt,
        round -> Integer,
    }
}

// PostgreSQL only.
table! {
    blobs (sha256) {
        sha256 -> Binary,
        bytes -> BigInt,
        stored_at -> BigInt,
    }
}

// PostgreSQL only.
table! {
    blob_chunks (sha256, chunk) {
        sha256 -> Binary,
        chunk -> Integer,
        body -> Binary,
    }
}

table! {
    attempts (task, attempt) {
        task -> BigInt,
        attempt -> Integer,
        fence -> BigInt,
        worker -> Text,
        assigned_at -> BigInt,
        started_at -> Nullable<BigInt>,
        ended_at -> BigInt,
        ending -> Integer,
        exit_code -> Nullable<Integer>,
        signal -> Nullable<Integer>,
        error -> Nullable<Text>,
        result -> Nullable<Text>,
        outputs -> Nullable<Text>,
    }
}

table! {
    task_logs (task, attempt) {
        task -> BigInt,
        attempt -> Integer,
        bytes -> BigInt,
        cut -> BigInt,
    }
}

table! {
    workers (name) {
        name -> Text,
        boot -> BigInt,
        group_names -> Text,
        labels -> Text,
        slots -> Integer,
        prefetch -> Integer,
        draining -> Integer,
        registered_at -> BigInt,
        changed_at -> BigInt,
    }
}

table! {
    event_segments (first_seq) {
        first_seq -> BigInt,
        last_seq -> BigInt,
        at -> BigInt,
        body -> Text,
    }
}

table! {
    event_subjects (subject, first_seq) {
        subject -> Text,
        first_seq -> BigInt,
    }
}

table! {
    idempotency_keys (hash) {
        hash -> Binary,
        body -> Binary,
        first_task -> BigInt,
        task_count -> Integer,
        at -> BigInt,
    }
}

table! {
    leadership (id) {
        id -> Integer,
        epoch -> BigInt,
        taken_at -> BigInt,
        log_id -> Text,
        head_seq -> BigInt,
        last_batch -> BigInt,
        last_task -> BigInt,
        settled_completed -> BigInt,
        settled_failed -> BigInt,
        settled_cancelled -> BigInt,
        settled_skipped -> BigInt,
        last_run -> BigInt,
        last_checkpoint -> BigInt,
        last_lock -> BigInt,
    }
}

table! {
    concurrency_keys (name) {
        name -> Text,
        max_holders -> Integer,
        rate_count -> Nullable<Integer>,
        rate_per_ms -> Nullable<BigInt>,
    }
}

table! {
    schedules (name) {
        name -> Text,
        cron -> Text,
        zone -> Text,
        catch_up -> Integer,
        paused -> Integer,
        next_at -> Nullable<BigInt>,
        last_at -> Nullable<BigInt>,
        fired -> BigInt,
        created_at -> BigInt,
        body -> Text,
    }
}

table! {
    lock_spaces (id) {
        id -> Integer,
        ignore_case -> Integer,
        fence -> BigInt,
        repo -> Text,
    }
}

table! {
    lock_grants (number) {
        number -> BigInt,
        space -> Integer,
        fence -> BigInt,
        task -> Nullable<BigInt>,
        attempt -> Nullable<Integer>,
        attempt_fence -> Nullable<BigInt>,
        until -> Integer,
        writes -> Integer,
        lease -> Integer,
        ttl_ms -> Nullable<BigInt>,
        expires_at -> Nullable<BigInt>,
        acquired_at -> BigInt,
        acquired_first_seq -> BigInt,
        acquired_last_seq -> BigInt,
        ending -> Nullable<Integer>,
        ended_at -> Nullable<BigInt>,
        ended_first_seq -> Nullable<BigInt>,
        ended_last_seq -> Nullable<BigInt>,
        lock_id -> Binary,
        owner -> Nullable<Text>,
        reason -> Text,
        ended_reason -> Nullable<Text>,
        paths -> Text,
    }
}

diesel::allow_tables_to_appear_in_same_query!(
    tasks,
    task_specs,
    task_relationships,
    task_blobs,
    task_outdated,
    task_rounds,
    task_versions,
    checkpoints,
    checkpoint_choices,
    task_memory,
    run_memory,
    runs,
    run_definitions,
    run_versions,
    lock_spaces,
    lock_grants,
);
