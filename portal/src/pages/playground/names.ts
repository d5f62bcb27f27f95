// Who can be asked, under which name, and whom to ask at first.

import { useQuery } from "@tanstack/react-query";
import { get, path } from "../../api/http";
import { ALL_MODELS } from "../../api/shared";
import type { Deployment, List, Model, Overview, Price } from "../../api/types";

export type Group = "teachers" | "deployments" | "fine_tuned" | "checkpoints" | "bases";
export const GROUPS: Group[] = ["deployments", "teachers", "fine_tuned", "checkpoints", "bases"];

export interface Name {
  name: string;
  group: Group;
  isTeacher: boolean;
  /** A model that the next call has to load first, which takes seconds. */
  mustLoad: boolean;
}

export interface Names {
  all: Name[];
  prices: Map<string, Price>;
  deployments: Deployment[];
}

const LOOK_MS = 15_000;
const GROUP_OF: Record<Model["kind"], Group> = {
  teacher: "teachers",
  student_base: "bases",
  fine_tuned: "fine_tuned",
  checkpoint: "checkpoints",
};

export function useNames() {
  const models = useQuery(ALL_MODELS);
  const deployments = useQuery({
    queryKey: ["deployments", "names"],
    queryFn: ({ signal }) => get<List<Deployment>>("/v1/stillroom/deployments", signal),
    refetchInterval: LOOK_MS,
  });
  const prices = useQuery({
    queryKey: ["prices"],
    queryFn: ({ signal }) => get<List<Price>>("/v1/stillroom/prices", signal),
  });
  const error = models.error ?? deployments.error;
  const retry = () => {
    models.refetch();
    deployments.refetch();
  };
  if (!models.data || !deployments.data) return { names: null, error, retry };
  return { names: namesOf(models.data.data, deployments.data.data, prices.data?.data ?? []), error: null, retry };
}

function namesOf(models: Model[], deployments: Deployment[], prices: Price[]): Names {
  const teachers = new Set(models.filter((model) => model.kind === "teacher").map((model) => model.name));
  const loaded = new Set(deployments.filter((one) => one.loaded).map((one) => one.model));
  const deployed = deployments
    .filter((one) => one.state === "Succeeded")
    .map((one): Name => {
      const isTeacher = teachers.has(one.model);
      return { name: one.name, group: "deployments", isTeacher, mustLoad: !isTeacher && !one.loaded };
    });
  const taken = new Set(deployed.map((one) => one.name));
  const others = models
    .filter((model) => model.can.chat && !taken.has(model.name))
    .map((model): Name => {
      const isTeacher = model.kind === "teacher";
      const mustLoad = !isTeacher && !loaded.has(model.name);
      return { name: model.name, group: GROUP_OF[model.kind], isTeacher, mustLoad };
    });
  // A deployment answers instead of a model of its name, so its price counts.
  const known = new Map(prices.map((price) => [price.name, price]));
  return { all: [...deployed, ...others], prices: known, deployments };
}

/** Whom to ask at first: the newest student that is deployed, and the teacher that it learnt from. */
export function firstPair(names: Names, overview: Overview | undefined): { left: string; right: string } {
  const right = newestStudent(names) ?? "";
  return { left: teacherOf(right, names, overview), right };
}

function newestStudent(names: Names): string | undefined {
  const students = names.deployments.filter((one) => one.base !== null && one.state === "Succeeded");
  return students.sort((one, other) => other.created_at - one.created_at)[0]?.name;
}

/** The teacher whose answers a student was measured against, else the first; empty when there is none. */
export function teacherOf(student: string, names: Names, overview: Overview | undefined): string {
  const model = names.deployments.find((one) => one.name === student)?.model;
  const { agreement, would_have: saved } = overview ?? {};
  const known = [
    agreement && [student, model].includes(agreement.model) ? agreement.teacher : null,
    saved && [student, model].includes(saved.student) ? saved.teacher : null,
  ];
  // A teacher's name may be a student's by now.
  const teachers = names.all.filter((one) => one.isTeacher && one.name !== student).map((one) => one.name);
  return known.find((name) => name && teachers.includes(name)) ?? teachers[0] ?? "";
}

/** What the page knows of the project; only asked for when nobody was chosen yet. */
export function useOverview(wanted: boolean) {
  return useQuery({
    queryKey: ["overview"],
    queryFn: ({ signal }) => get<Overview>(path("/v1/stillroom/overview"), signal),
    enabled: wanted,
  });
}
