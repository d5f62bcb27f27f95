// What the pages of evals ask the server, and how often.

import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { get, path } from "../../api/http";
import type { EvalDefinition, EvalRun, List, OutputItem, Report } from "../../api/types";

const EVALS = "/v1/evals";
export const PAGE = 20;
const MOST_RUNS = 100;
const QUICK_MS = 1500;
const SLOW_MS = 15_000;
const REPORT_MS = 4000;
const ITEMS = 50;

export type ItemStatus = OutputItem["status"];

export const evalPath = (id: string): string => `${EVALS}/${encodeURIComponent(id)}`;
export const runPath = (id: string, run: string): string => `${evalPath(id)}/runs/${encodeURIComponent(run)}`;
export const reportPath = (id: string, format: "html" | "markdown" | "json"): string =>
  path(`/v1/stillroom/evals/${encodeURIComponent(id)}/report`, { format });

export const isGoing = (run: EvalRun): boolean => run.status === "queued" || run.status === "in_progress";

export function useEvals() {
  return useInfiniteQuery({
    queryKey: ["evals"],
    queryFn: ({ pageParam, signal }) =>
      get<List<EvalDefinition>>(path(EVALS, { order: "desc", limit: PAGE, after: pageParam }), signal),
    initialPageParam: "",
    getNextPageParam: (page) => (page.has_more ? page.last_id : undefined),
    refetchInterval: SLOW_MS,
  });
}

export function useEval(id: string) {
  return useQuery({ queryKey: ["eval", id], queryFn: ({ signal }) => get<EvalDefinition>(evalPath(id), signal) });
}

/** The newest runs of an eval, newest first. */
export function useRuns(id: string) {
  return useQuery({
    queryKey: ["eval-runs", id],
    queryFn: ({ signal }) =>
      get<List<EvalRun>>(path(`${evalPath(id)}/runs`, { order: "desc", limit: MOST_RUNS }), signal),
    refetchInterval: ({ state }) => (state.data?.data.some(isGoing) ? QUICK_MS : SLOW_MS),
  });
}

export function useRun(id: string, run: string) {
  return useQuery({
    queryKey: ["eval-run", id, run],
    queryFn: ({ signal }) => get<EvalRun>(runPath(id, run), signal),
    refetchInterval: ({ state }) => (state.data && isGoing(state.data) ? QUICK_MS : false),
  });
}

/** The report over the newest runs. `ended` says how many of them have: when that changes, so does the report. */
export function useReport(id: string, ended: number, going: boolean) {
  return useQuery({
    queryKey: ["eval-report", id, ended],
    queryFn: ({ signal }) => get<Report>(reportPath(id, "json"), signal),
    placeholderData: (before) => before,
    staleTime: Number.POSITIVE_INFINITY,
    refetchInterval: going ? REPORT_MS : false,
  });
}

export function useItems(id: string, run: string, status: ItemStatus | null, going: boolean) {
  return useInfiniteQuery({
    queryKey: ["eval-items", id, run, status],
    queryFn: ({ pageParam, signal }) =>
      get<List<OutputItem>>(
        path(`${runPath(id, run)}/output_items`, { limit: ITEMS, after: pageParam, status }),
        signal,
      ),
    initialPageParam: "",
    getNextPageParam: (page) => (page.has_more ? page.last_id : undefined),
    refetchInterval: going ? QUICK_MS : false,
  });
}
