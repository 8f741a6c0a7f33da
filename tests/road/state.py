"""Which cases are not served yet, and which ones every run of the tests takes."""

from __future__ import annotations

# Refused, with the code.
REFUSED: dict[str, str] = {
    "un_gate_between": "A0404",
    "un_log_sum_exp_values": "A0404",
}

# Wrong, with the reason.
WRONG: dict[str, str] = {}

# One or two of each kind; the others are slow tests.
QUICK = {
    "bias_of_minus_infinity_causal",
    "buckets_by_distance",
    "choice_of_axes",
    "clipped_relative_rows",
    "column_max",
    "columns_hide",
    "conv_keys",
    "cosine",
    "differential",
    "documents_prefix",
    "entropy_by_logs",
    "forgetting",
    "from_one_input",
    "gate_out",
    "grouped_apart",
    "kerple",
    "neighbourhood",
    "nothing_seen",
    "positions_window",
    "power_of_distance",
    "relative_rows_of_keys",
    "rotary",
    "rows_kept",
    "sequence_first",
    "shifted_then_floored",
    "sink_per_row",
    "slope_and_bias",
    "slots",
    "softmax_dropped",
    "softpick_2",
    "softplus_sum",
    "spans",
    "start_dilated",
    "start_end",
    "start_slope",
    "swin",
    "table_by_types",
    "table_of_few",
    "table_of_none",
    "taxicab_distance",
    "two_key_sets",
    "two_ranges",
    "un_antidiagonal_band",
    "un_decay_recurrence",
    "un_half_features",
    "un_offset_down",
    "un_repeated_keys",
    "un_scan_backward",
    "un_sign_by_feature",
    "un_solve_budget",
    "un_start_tensor_mod",
    "weights_of_slopes",
    "width_per_head",
    "window_or_last",
    "window_or_strided",
}
