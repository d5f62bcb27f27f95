// The API's objects as the portal uses them. Times are seconds since the epoch; money is micro-USD.

export interface List<T> {
  data: T[];
  has_more: boolean;
  first_id?: string | null;
  last_id?: string | null;
}

export interface Session {
  key_id: string;
  key_name: string;
  project: string | number;
  expires_at: number;
}

export type Metadata = Record<string, string>;
export type CompletionStatus = "completed" | "incomplete";

/** Which stored completions; all conditions hold. */
export interface Filter {
  model?: string;
  status?: CompletionStatus;
  created_after?: number;
  created_before?: number;
  /** A completion's id: none that began after it. */
  up_to?: string;
  metadata?: Metadata;
  search?: string;
}

export interface CompletionRow {
  id: string;
  created_at: number;
  model: string;
  status: CompletionStatus;
  finish_reason: string | null;
  metadata: Metadata;
  prompt_tokens: number;
  completion_tokens: number;
  latency_ms: number;
  first_token_ms: number;
  cost_microusd: number | null;
  question: string;
  answer: string;
  tool_calls: string[];
}

export interface ContentPart {
  type: string;
  text?: string;
  [other: string]: unknown;
}

export interface ToolCall {
  id?: string;
  type?: string;
  function?: { name?: string; arguments?: string };
}

export interface ChatMessage {
  role: string;
  content?: string | ContentPart[] | null;
  name?: string;
  refusal?: string | null;
  tool_calls?: ToolCall[] | null;
  tool_call_id?: string;
}

export interface CompletionDetail extends CompletionRow {
  request: { messages: ChatMessage[]; [parameter: string]: unknown };
  response: { choices?: { message?: ChatMessage; finish_reason?: string }[]; [field: string]: unknown };
  /** What the teacher held likely, where that was asked for. */
  soft_labels?: { tokens: number; alternatives: number } | null;
}

/** What a file of preference pairs was made of; in a dry run, would be. */
export interface Preferences {
  training_file: StoredFile | null;
  pairs: number;
  skipped: Record<string, number>;
}

export interface Count {
  count: number;
  at_least: boolean;
}

export interface FacetValue {
  value: string;
  count: number;
}

export interface Facets {
  sampled: boolean;
  models: FacetValue[];
  statuses: FacetValue[];
  metadata: { key: string; values: FacetValue[]; more: boolean }[];
}

export interface BulkAction {
  id: string;
  action: "tag" | "delete";
  status: "waiting" | "running" | "succeeded" | "failed" | "cancelled";
  created_at: number;
  starts_at: number | null;
  finished_at: number | null;
  matched: number | null;
  done: number;
  skipped: number;
  skipped_because?: { not_found: number; too_many_pairs: number };
  error: { code: string | null; message: string } | null;
}

/** One action by itself says which completions it is about: by ids, or by a filter. */
export interface BulkActionDetail extends BulkAction {
  filter: Filter | null;
  ids: string[] | null;
}

export interface FineTuningJob {
  id: string;
  model: string;
  fine_tuned_model: string | null;
  status: "validating_files" | "queued" | "running" | "paused" | "succeeded" | "failed" | "cancelled";
  created_at: number;
  finished_at: number | null;
  estimated_finish: number | null;
  training_file: string;
  validation_file: string | null;
  result_files: string[];
  trained_tokens: number | null;
  seed: number;
  error: { code: string | null; message: string | null; param: string | null } | null;
  hyperparameters?: Record<string, string | number | null>;
  method?: { type: string; on_policy?: { teacher?: string } };
  metadata?: Metadata | null;
  user_provided_suffix?: string;
}

export interface Job {
  job: FineTuningJob;
  progress: {
    step: number | null;
    steps: number | null;
    epoch: number | null;
    train_loss: number | null;
    valid_loss: number | null;
    /** Of jobs that learn from pairs alone. */
    rewards_margin?: number | null;
    seconds_left: number | null;
  };
  cost_microusd: number | null;
  quote: string | null;
  /** How many prompt tokens a call of its model saves, because it does without its system prompt. */
  dropped_prompt_tokens?: number | null;
  /** Rows of the training file; null when it is gone or not yet read. */
  examples?: number | null;
}

export interface JobMetrics {
  steps: number[];
  /** Of jobs that learn from pairs alone. */
  rewards_margin?: (number | null)[];
  train_loss: (number | null)[];
  train_mean_token_accuracy: (number | null)[];
  valid: { step: number; valid_loss: number | null; valid_mean_token_accuracy: number | null }[];
  total_steps: number | null;
  last_step: number;
}

export interface JobEvent {
  id: string;
  created_at: number;
  level: "info" | "warn" | "error";
  message: string;
  type: "message" | "metrics";
  data: Record<string, unknown>;
}

export interface Checkpoint {
  id: string;
  created_at: number;
  fine_tuned_model_checkpoint: string;
  step_number: number;
  metrics: Record<string, number>;
}

export interface StoredFile {
  id: string;
  filename: string;
  bytes: number;
  created_at: number;
  purpose: string;
  status?: string;
  status_details?: string | null;
}

export interface Deployment {
  name: string;
  model: string;
  base: string | null;
  job: string | null;
  /** The system prompt that it was trained without, and is asked without. */
  dropped_prompt: { text: string; tokens: number | null } | null;
  state: "Creating" | "Succeeded" | "Failed" | "Deleting";
  error: { code: string | null; message: string } | null;
  created_at: number;
  loaded: boolean;
  calls: number;
  prompt_tokens: number;
  completion_tokens: number;
  saved_prompt_tokens: number;
  cost_microusd: number;
  hosted_seconds: number;
  hosting_microusd: number;
  usd_per_hosting_hour: number;
  price: { input: number; output: number };
  latency_ms: { p50: number; p95: number; calls: number } | null;
  first_token_ms: { p50: number } | null;
  calls_per_day: { day: string; calls: number }[];
}

export interface Model {
  name: string;
  kind: "teacher" | "student_base" | "fine_tuned" | "checkpoint";
  base: string | null;
  job: string | null;
  created_at: number | null;
  bytes: number | null;
  deployments: string[];
  price: { input: number; output: number; training: number; usd_per_hosting_hour: number };
  can: { fine_tune: boolean; deploy: boolean; chat: boolean };
}

export interface Selection {
  training_file: StoredFile;
  validation_file: StoredFile | null;
  training_examples: number;
  validation_examples: number;
  skipped: Record<string, number>;
  /** How many of the examples have some; null when they were not asked for. */
  soft_labels: number | null;
  warnings: string[];
}

/** A selection that was only counted. */
export interface DryRun {
  training_examples: number;
  validation_examples: number;
  report: DataReport;
}

export type LeftOutReason =
  | "malformed"
  | "empty"
  | "refusal"
  | "truncated"
  | "too_short"
  | "too_long"
  | "language"
  | "exact_duplicate"
  | "not_best"
  | "near_duplicate";

/** About the rows that stay, but for `rows`, `left_out` and `found`: how many each check finds, asked for or not. */
export interface DataReport {
  rows: number;
  kept: number;
  left_out: { reason: LeftOutReason; count: number; examples: string[] }[];
  found: Partial<Record<LeftOutReason, number>>;
  lengths: {
    what: string;
    /** Below which 5, 25, 50, 75 and 95 % are. */
    quantiles: number[];
    histogram: { least: number; below: number; count: number }[];
  }[];
  labels: { name: string; count: number }[] | null;
  languages: { name: string; count: number }[] | null;
  prompt_tokens: number;
  answer_tokens: number;
  notes: string[];
}

export interface BreakEven {
  teachers: string[];
  window: { since: number; until: number; days: number };
  calls: number;
  calls_per_day: number;
  tokens_per_call: { prompt: number; completion: number };
  teacher_microusd_per_day: number;
  student_microusd_per_day: number;
  student_tokens_microusd_per_day: number;
  student_hosting_microusd_per_day: number;
  saved_microusd_per_day: number;
  training_microusd: number | null;
  break_even_days: number | null;
  break_even_date: string | null;
  reason: string | null;
}

export interface Quote {
  id: string;
  model: string;
  training_file: string | null;
  examples: number;
  validation_examples: number;
  tokens_per_epoch: number;
  /** How many prompt tokens a call would save; null where the system prompt is kept. */
  dropped_prompt_tokens?: number | null;
  n_epochs: number;
  batch_size: number;
  learning_rate_multiplier: number;
  steps: number;
  trained_tokens: number;
  cost_microusd: number;
  cost_usd: number;
  minutes: { expected: number; low: number; high: number };
  hosting_usd_per_month: number;
  /** How the minutes were found out, in the server's words. */
  measured: string;
  break_even: BreakEven | null;
  warnings: string[];
}

/** A job beside the quote that was made for it; each null where there is none. */
export interface QuoteComparison {
  predicted: { trained_tokens: number; cost_microusd: number; minutes: Quote["minutes"] } | null;
  actual: { trained_tokens: number; cost_microusd: number; minutes: number | null } | null;
  relative_error: { trained_tokens: number | null; cost: number | null; minutes: number | null } | null;
}

export interface ResolvedHyperparameters {
  model: string;
  examples: number;
  total_steps: number;
  values: Record<string, string | number>;
  why: Record<string, string>;
}

export interface ApiKey {
  id: string;
  name: string;
  shown: string;
  created_at: number;
  revoked_at: number | null;
  key?: string;
}

export interface Usage {
  day?: string;
  deployment?: string | null;
  model?: string;
  key?: string | null;
  key_id?: string | null;
  kind?: string;
  events: number;
  prompt_tokens: number;
  cached_tokens: number;
  completion_tokens: number;
  saved_prompt_tokens: number;
  trained_tokens: number;
  hosted_seconds: number;
  cost_microusd: number;
}

export interface Budget {
  usd: number;
  limit_microusd: number;
  spent_microusd: number;
  spent: boolean;
  period: "month" | "total";
  begins_at: number | null;
  ends_at: number | null;
}

export interface Price {
  name: string;
  kind: string;
  of: string | null;
  usd_per_million: { input: number; cached_input: number; output: number; training: number };
  usd_per_hosting_hour: number;
  source: string;
}

export interface Overview {
  window: { since: number; until: number };
  stored: number;
  stored_at_least: boolean;
  teachers: {
    name: string;
    calls: number;
    prompt_tokens: number;
    completion_tokens: number;
    cost_microusd: number;
  }[];
  students: { name: string; model: string; calls: number; cost_microusd: number; hosting_microusd: number }[];
  per_day: {
    day: string;
    teacher_microusd: number;
    student_microusd: number;
    teacher_calls: number;
    student_calls: number;
  }[];
  would_have: {
    student: string;
    teacher: string;
    since: number;
    calls: number;
    teacher_microusd: number;
    student_microusd: number;
    saved_microusd: number;
  } | null;
  agreement: {
    eval: string;
    run: string;
    model: string;
    teacher: string;
    rate: number;
    low: number;
    high: number;
    items: number;
    created_at: number;
    report: string;
  } | null;
  jobs_running: number;
  training_microusd: number;
  evaluation_microusd: number;
  spent_microusd: number;
  budget: Budget | null;
  version: string;
}

export interface Criterion {
  type: string;
  name: string;
  id?: string;
  [field: string]: unknown;
}

export interface EvalDefinition {
  id: string;
  name: string;
  created_at: number;
  metadata: Metadata | null;
  testing_criteria: Criterion[];
  data_source_config: { type: string; metadata?: Metadata | null; [field: string]: unknown };
}

export interface EvalRun {
  id: string;
  eval_id: string;
  name: string;
  model: string;
  status: "queued" | "in_progress" | "completed" | "canceled" | "failed";
  created_at: number;
  error: { code: string; message: string } | null;
  result_counts: { total: number; passed: number; failed: number; errored: number };
  per_testing_criteria_results: { testing_criteria: string; passed: number; failed: number }[] | null;
  per_model_usage:
    | { model_name: string; invocation_count: number; prompt_tokens: number; completion_tokens: number }[]
    | null;
  report_url: string;
  data_source: { type: string; [field: string]: unknown };
  lineage: { total: number; tuned: boolean; trained_on: number | null; left_out: number } | null;
}

export interface GraderResult {
  name: string;
  type: string;
  score: number;
  passed: boolean;
  sample: Record<string, unknown> | null;
  error?: { code: string; message: string };
}

export interface OutputItem {
  id: string;
  created_at: number;
  status: "pass" | "fail" | "error";
  datasource_item_id: number;
  datasource_item: {
    id?: string;
    input?: ChatMessage[] | string;
    output_text?: string;
    metadata?: Metadata;
    [field: string]: unknown;
  };
  results: GraderResult[];
  sample: {
    input?: ChatMessage[];
    output: ChatMessage[];
    model: string;
    finish_reason: string | null;
    usage: { prompt_tokens?: number; completion_tokens?: number };
    error: { code?: string; message: string } | null;
    [field: string]: unknown;
  };
}

/** A share of a total, and the 95 % interval of the true one; all from 0 to 1. */
export interface Share {
  count: number;
  total: number;
  share: number;
  low: number;
  high: number;
}

export interface ReportSide {
  run_id: string;
  name: string;
  model: string | null;
  status: string;
  items: number;
  graded: number;
  errored: number;
  unanswered: number;
  problem: string | null;
  agreement: Share | null;
  criteria: {
    name: string;
    type: string;
    passed: Share | null;
    mean_score: number | null;
    errored: number;
    problem: string | null;
  }[];
  judged: { wins: number; ties: number; losses: number; win_or_tie: Share | null } | null;
  speed: ReportSpeed;
  expense: ReportExpense;
  training: { tuned: boolean; trained_on: number | null; left_out: number } | null;
  earning: {
    training_microusd: number;
    teacher_microusd_per_day: number;
    student_microusd_per_day: number;
    days: number | null;
    date: string | null;
    reason: string | null;
  } | null;
  slices: { key: string; value: string; agreement: Share }[];
  worst: Disagreement[];
}

export interface ReportSpeed {
  p50_ms: number | null;
  p95_ms: number | null;
}

/** Tokens of one call on average. */
export interface ReportExpense {
  prompt_tokens: number;
  completion_tokens: number;
  microusd_per_1000_calls: number | null;
}

export interface Disagreement {
  completion_id: string | null;
  prompt: string;
  teacher: string;
  student: string;
  score: number;
  metadata: Metadata;
}

/** Teacher beside student: what the runs of an eval say of their models. */
export interface Report {
  eval_id: string;
  name: string;
  created_at: number;
  criteria: string[];
  judges: string[];
  teacher: { models: Record<string, number>; items: number; speed: ReportSpeed; expense: ReportExpense } | null;
  sides: ReportSide[];
  pairs: {
    run_id: string;
    beside_run_id: string;
    items: number;
    only_this_agrees: number;
    only_beside_agrees: number;
    p_value: number | null;
  }[];
  notes: string[];
}
