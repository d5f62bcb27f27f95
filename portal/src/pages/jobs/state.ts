// What a job's state means: what may be done, and whether anything can still change.

import type { FineTuningJob, Job, ResolvedHyperparameters } from "../../api/types";
import type { Tone } from "../../ui";

export type JobState = FineTuningJob["status"];

const METHODS = ["supervised", "dpo", "on_policy"] as const;
/** What a job says for the teacher of a student that judges itself. */
export const ITSELF = "self";

const UNDER_WAY: JobState[] = ["validating_files", "queued", "running"];

/** Whether the job moves by itself, and is worth looking at often. */
export const isUnderWay = (job: FineTuningJob): boolean => UNDER_WAY.includes(job.status);
export const hasEnded = (job: FineTuningJob): boolean => !isUnderWay(job) && job.status !== "paused";

export function deedsOf(job: FineTuningJob) {
  return {
    pause: isUnderWay(job),
    resume: job.status === "paused",
    cancel: !hasEnded(job),
    use: job.status === "succeeded" && job.fine_tuned_model !== null,
  };
}

export const TONES: Record<JobState, Tone> = {
  validating_files: "plain",
  queued: "plain",
  running: "student",
  paused: "warn",
  succeeded: "good",
  failed: "bad",
  cancelled: "plain",
};

/** So little time left is not counted down: it is known no better. */
export const SOON_SECONDS = 5;

/** Seconds until the end, as the server sees it; null when it cannot say. */
export function secondsLeft({ job, progress }: Job, now: number): number | null {
  if (job.status !== "running") return null;
  if (progress.seconds_left !== null) return progress.seconds_left;
  return job.estimated_finish === null ? null : Math.max(0, job.estimated_finish - now);
}

/** Seconds from being asked for to the end, or to now; a second at least, which is what the server's times are exact to. */
export function secondsTaken(job: FineTuningJob, now: number): number {
  return Math.max(1, (job.finished_at ?? now) - job.created_at);
}

/** The address of the wizard with this job's choices in it, to change some and train again. */
export function againAddress(job: FineTuningJob, auto: ResolvedHyperparameters["values"] = {}): string {
  const query = new URLSearchParams({ file: job.training_file, student: job.model });
  if (methodOf(job) !== "supervised") query.set("method", methodOf(job));
  const judge = job.method?.on_policy?.teacher;
  if (judge && judge !== ITSELF) query.set("teacher", judge);
  if (job.validation_file) query.set("validation", job.validation_file);
  if (job.user_provided_suffix) query.set("suffix", job.user_provided_suffix);
  for (const [name, value] of Object.entries(job.hyperparameters ?? {})) {
    // What "auto" gave stays "auto", so that it follows when the rows change.
    if (value !== null && value !== auto[name]) query.set(name, String(value));
  }
  query.set("job_seed", String(job.seed));
  query.set("step", "hyperparameters");
  return `/distill?${query}`;
}

/** What a job learns by. */
export const methodOf = (job: FineTuningJob) =>
  METHODS.find((method) => method === job.method?.type) ?? ("supervised" as const);

/** What a job is called: by its suffix, else by its id. */
export const nameOf = (job: FineTuningJob): string => job.user_provided_suffix ?? job.id;
