// Whose answers the rows are: those of one teacher at first, and never a student's unnoticed.

import { useQuery } from "@tanstack/react-query";
import { useEffect } from "react";
import { get } from "../../api/http";
import { ALL_MODELS } from "../../api/shared";
import type { Facets, Filter, Model } from "../../api/types";
import { asked, COMPLETIONS, keyOf } from "../completions/filter";
import type { Source } from "./choices";
import type { StepProps } from "./step";

const TUNED = ["fine_tuned", "checkpoint"];
const FINE_TUNED = "ft:";

/** Where several models have answered, the teacher with most answers is chosen until the reader chooses. */
export function useTeacherAtFirst(source: Source, isChosen: boolean, set: StepProps["set"]): void {
  const open = source.kind === "filter" && !isChosen;
  const { answering, models } = useAnswering(source.kind === "filter" ? source.filter : {}, open);
  const [first] = answering.length > 1 && models ? answering.filter((name) => isTeacher(name, models)) : [];
  // biome-ignore lint/correctness/useExhaustiveDependencies: `set` is another function each time
  useEffect(() => {
    if (open && first) set({ model: first });
  }, [open, first]);
}

/** Those of the answering models that are students: who learns from them, learns their mistakes. */
export function useStudentsAmong(filter: Filter): string[] {
  const { answering, models } = useAnswering(filter, true);
  const named = filter.model === undefined ? answering : [filter.model];
  return models ? named.filter((name) => isStudent(name, models)) : [];
}

/** Under which names the rows were answered, the one with most of them first; and what is known of names. */
function useAnswering(filter: Filter, enabled: boolean) {
  const facets = useQuery({
    queryKey: ["completions", "facets", keyOf(filter)],
    queryFn: ({ signal }) => get<Facets>(asked(`${COMPLETIONS}/facets`, filter), signal),
    enabled,
  });
  const models = useQuery({ ...ALL_MODELS, enabled });
  const byCount = [...(facets.data?.models ?? [])].sort((one, other) => other.count - one.count);
  return { answering: byCount.map((one) => one.value), models: models.data?.data ?? null };
}

const isTeacher = (name: string, models: Model[]): boolean =>
  !isStudent(name, models) && models.some((model) => model.name === name && model.kind === "teacher");

/** A teacher's name that a student is deployed under is a student's. */
function isStudent(name: string, models: Model[]): boolean {
  const tuned = models.filter((model) => TUNED.includes(model.kind));
  return name.startsWith(FINE_TUNED) || tuned.some((model) => model.name === name || model.deployments.includes(name));
}
