// What the pages of jobs ask the server, and how often.

import { type QueryClient, useInfiniteQuery, useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useRef } from "react";
import { get, path } from "../../api/http";
import type { Checkpoint, Job, JobMetrics, List, QuoteComparison, ResolvedHyperparameters } from "../../api/types";
import { lastStepOf, merged } from "./metrics";
import { isUnderWay } from "./state";

const QUICK_MS = 1500;
const SLOW_MS = 10_000;
const PAGE = 20;
const OWN = "/v1/stillroom/jobs";
const OPENAI = "/v1/fine_tuning/jobs";

const each = (id: string) => encodeURIComponent(id);

/** All jobs, newest first; looked at often only while one of them moves. */
export function useJobs() {
  return useInfiniteQuery({
    queryKey: ["jobs"],
    queryFn: ({ pageParam, signal }) => get<List<Job>>(path(OWN, { limit: PAGE, after: pageParam }), signal),
    initialPageParam: "",
    getNextPageParam: (last) => (last.has_more ? last.data.at(-1)?.job.id : undefined),
    refetchInterval: ({ state }) => {
      const shown = state.data?.pages.flatMap((page) => page.data) ?? [];
      return shown.some(({ job }) => isUnderWay(job)) ? QUICK_MS : SLOW_MS;
    },
  });
}

export function useJob(id: string) {
  return useQuery({
    queryKey: ["job", id],
    queryFn: ({ signal }) => get<Job>(`${OWN}/${each(id)}`, signal),
    refetchInterval: ({ state }) => intervalOf(state.data),
  });
}

/** The figures of each step; only those that are new are asked for. */
export function useMetrics({ job }: Job) {
  const client = useQueryClient();
  const queryKey = ["job-metrics", job.id];
  return useQuery({
    queryKey,
    queryFn: async ({ signal }) => {
      const known = client.getQueryData<JobMetrics>(queryKey);
      const where = path(`${OWN}/${each(job.id)}/metrics`, { after_step: lastStepOf(known) });
      return merged(known, await get<JobMetrics>(where, signal));
    },
    // Thousands of numbers that only grow need no comparison one by one.
    structuralSharing: false,
    refetchInterval: job.status === "running" ? QUICK_MS : false,
  });
}

export function useCheckpoints({ job }: Job) {
  return useQuery({
    queryKey: ["job-checkpoints", job.id],
    queryFn: ({ signal }) =>
      get<List<Checkpoint>>(path(`${OPENAI}/${each(job.id)}/checkpoints`, { limit: 100 }), signal),
    refetchInterval: job.status === "running" ? 2 * QUICK_MS : false,
  });
}

/** The quote and what came of it; asked again when the job ends. */
export function useQuoteComparison({ job }: Job) {
  return useQuery({
    queryKey: ["job-quote", job.id],
    queryFn: ({ signal }) => get<QuoteComparison>(`${OWN}/${each(job.id)}/quote`, signal),
    // A job's rows are known by their content, and so its quote, once its trainer has read them.
    refetchInterval: ({ state }) => (isUnderWay(job) && !state.data?.predicted ? SLOW_MS : false),
  });
}

/** What "auto" would choose for the job's file. */
export function useAuto({ job }: Job) {
  return useQuery({
    queryKey: ["hyperparameters", job.model, job.training_file, job.method?.type],
    queryFn: ({ signal }) => {
      const query = { model: job.model, training_file: job.training_file, method: job.method?.type };
      return get<ResolvedHyperparameters>(path("/v1/stillroom/hyperparameters", query), signal);
    },
    staleTime: Number.POSITIVE_INFINITY,
  });
}

/** Everything about the job is asked once more when its state changes: the last figures come with the end. */
export function useFollowing({ job }: Job): void {
  const client = useQueryClient();
  const { id, status } = job;
  const before = useRef(status);
  useEffect(() => {
    if (before.current === status) return;
    before.current = status;
    for (const key of ["job-metrics", "job-checkpoints", "job-events", "job-quote"]) {
      client.invalidateQueries({ queryKey: [key, id] });
    }
  }, [client, id, status]);
}

/** After a deed: the job and the list are looked at again. */
export function lookAgain(client: QueryClient, id: string): void {
  for (const queryKey of [["jobs"], ["job", id], ["job-events", id]]) client.invalidateQueries({ queryKey });
}

function intervalOf(found: Job | undefined): number | false {
  if (!found) return false;
  if (isUnderWay(found.job)) return QUICK_MS;
  return found.job.status === "paused" ? SLOW_MS : false;
}
