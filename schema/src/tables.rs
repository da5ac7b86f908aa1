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
    }
}

diesel::allow_tables_to_appear_in_same_query!(tasks, task_specs);
