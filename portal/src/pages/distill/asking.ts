// What the wizard asks the server: how many rows there are, what they look like, what may be trained, what it costs.

import { keepPreviousData, useQueries, useQuery } from "@tanstack/react-query";
import { get, path, post } from "../../api/http";
import { ALL_MODELS } from "../../api/shared";
import type {
  CompletionDetail,
  CompletionRow,
  Count,
  DataReport,
  DryRun,
  Filter,
  List,
  Quote,
  ResolvedHyperparameters,
  StoredFile,
} from "../../api/types";
import { asked, COMPLETIONS, keyOf } from "../completions/filter";
import {
  type Choices,
  hyperparametersOf,
  isHyperparameter,
  type Method,
  methodOf,
  type Source,
  selectionOf,
  type Typed,
} from "./choices";
import { curationRequest, isCuration } from "./curation";
import { type Example, firstExamples, storedExample } from "./examples";
import { useTraits } from "./traits";

const SAMPLE = 3;
/** New rows may be stored while one thinks. */
const REPORT_FRESH_MS = 60_000;
const FOR_EVER = Number.POSITIVE_INFINITY;
const FILES = "/v1/files";

/** How many rows there are. */
export interface Rows {
  /** What can be trained on; null until it is known. */
  usable: number | null;
  /** Incomplete answers, which are left out; null where only the selection itself will find out. */
  incomplete: number | null;
  /** Whether there are more than was counted. */
  atLeast: boolean;
  error: unknown;
  retry: () => void;
}

export function useRows(source: Source, method: Method): Rows {
  const filter = source.kind === "filter" ? source.filter : {};
  const [all, whole] = useQueries({
    queries: [filter, { ...filter, status: "completed" as const }].map((each: Filter) => ({
      queryKey: ["completions", "count", keyOf(each)],
      queryFn: ({ signal }: { signal: AbortSignal }) => get<Count>(asked(`${COMPLETIONS}/count`, each), signal),
      enabled: source.kind === "filter",
    })),
  });
  const file = useFileRows(source, method);
  if (source.kind === "ids") {
    return { usable: source.ids?.length ?? 0, incomplete: null, atLeast: false, error: null, retry: () => {} };
  }
  if (source.kind === "file") {
    const retry = () => void file.refetch();
    return { usable: file.data?.examples ?? null, incomplete: 0, atLeast: false, error: file.error, retry };
  }
  const [found, usable] = [all?.data, whole?.data];
  return {
    usable: usable?.count ?? null,
    // Beyond what is counted exactly, the difference would say nothing.
    incomplete: found && usable && !found.at_least ? found.count - usable.count : null,
    atLeast: usable?.at_least ?? false,
    error: whole?.error ?? all?.error ?? null,
    retry: () => {
      all?.refetch();
      whole?.refetch();
    },
  };
}

/** The rows that curation leaves: the same, where nothing is to be left out. */
export function useCurated(choices: Choices, rows: Rows): Rows {
  const isCurated = choices.source.kind !== "file" && curationRequest(choices.curation) !== null;
  const report = useDataReport(choices, isCurated);
  if (!isCurated) return rows;
  const kept = report.isPlaceholderData ? undefined : report.data?.kept;
  return {
    ...rows,
    usable: kept ?? null,
    atLeast: false,
    error: rows.error ?? report.error,
    retry: () => void report.refetch(),
  };
}

/** The report on the rows as they are chosen and curated, of which nothing is made; of a file there is none. */
export function useDataReport(choices: Choices, isWanted: boolean) {
  const rows = selectionOf({ ...choices, share: 0 }, 0);
  return useQuery({
    queryKey: ["data report", rows],
    queryFn: async ({ signal }): Promise<DataReport> =>
      (await post<DryRun>("/v1/stillroom/selections", { ...rows, dry_run: true }, signal)).report,
    placeholderData: keepPreviousData,
    enabled: isWanted && rows !== null && isCuration(choices.curation),
    staleTime: REPORT_FRESH_MS,
    retry: false,
  });
}

/** The rows of a file: whoever knows what "auto" gives for them has counted them. */
function useFileRows(source: Source, method: Method) {
  const models = useStudents();
  const traits = useTraits(source);
  const model = models.data?.[0]?.name ?? "scratch-small";
  const file = source.kind === "file" ? source.file : null;
  // Until the file's kind is known and chosen, its rows would be refused.
  const isSettled = traits.isError || (traits.isSuccess && traits.data.arePairs === (method === "dpo"));
  return useQuery({
    queryKey: ["hyperparameters", model, file, method],
    queryFn: ({ signal }) => get<ResolvedHyperparameters>(path(AUTO, { model, training_file: file, method }), signal),
    enabled: !!file && !models.isPending && isSettled,
  });
}

const AUTO = "/v1/stillroom/hyperparameters";

/** What "auto" comes to for so many rows, beside the numbers that are given. */
export function useAuto(model: string | null, examples: number, method: Method, given: Typed) {
  const asked = Object.fromEntries(
    hyperparametersOf(method)
      .filter((name) => given[name] !== "" && isHyperparameter(name, given[name]))
      .map((name) => [name, given[name]]),
  );
  return useQuery({
    queryKey: ["hyperparameters", model, examples, method, asked],
    queryFn: ({ signal }) => get<ResolvedHyperparameters>(path(AUTO, { model, examples, method, ...asked }), signal),
    placeholderData: keepPreviousData,
    enabled: model !== null && examples > 0,
    staleTime: FOR_EVER,
  });
}

/** Some of the rows, to see that they are the right ones. */
export function useSample(source: Source) {
  return useQuery({
    queryKey: ["sample", source],
    queryFn: ({ signal }) => sampleOf(source, signal),
  });
}

async function sampleOf(source: Source, signal: AbortSignal): Promise<Example[]> {
  if (source.kind === "file") return firstExamples(source.file, SAMPLE, signal);
  if (source.kind === "ids") {
    const ids = (source.ids ?? []).slice(0, SAMPLE);
    const whole = ids.map((id) => get<CompletionDetail>(`${COMPLETIONS}/${encodeURIComponent(id)}`, signal));
    return (await Promise.all(whole)).map(storedExample);
  }
  const filter: Filter = { ...source.filter, status: "completed" };
  return (await get<List<CompletionRow>>(asked(COMPLETIONS, filter, { limit: SAMPLE }), signal)).data.map(
    storedExample,
  );
}

/** The models that can be fine-tuned, bases first. */
export function useStudents() {
  return useQuery({
    ...ALL_MODELS,
    select: ({ data }) => [
      ...data.filter((model) => model.can.fine_tune && model.kind === "student_base"),
      ...data.filter((model) => model.can.fine_tune && model.kind === "fine_tuned"),
    ],
  });
}

/** The files that jobs can be made of, newest first. */
export function useTrainingFiles() {
  return useQuery({
    queryKey: ["files", "fine-tune"],
    queryFn: ({ signal }) => get<List<StoredFile>>(path(FILES, { purpose: "fine-tune", limit: 100 }), signal),
  });
}

/** Measured once for the same choices: it takes real training steps, and so seconds. */
export function useQuote(choices: Choices, rows: number, student: string | null) {
  const body = quoteBody(choices, rows, student ?? "");
  return useQuery({
    queryKey: ["quote", body],
    queryFn: () => post<Quote>("/v1/stillroom/quotes", body),
    enabled: student !== null && rows > 0,
    staleTime: FOR_EVER,
    retry: false,
  });
}

function quoteBody(choices: Choices, rows: number, student: string) {
  const { source } = choices;
  const asked = { model: student, method: methodOf(choices) };
  if (source.kind !== "file") return { ...asked, selection: selectionOf(choices, rows) };
  const validation = source.validation === null ? {} : { validation_file: source.validation };
  return { ...asked, training_file: source.file, ...validation };
}
