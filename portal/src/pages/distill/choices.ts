// What the wizard has been told so far, all of it in the address: going back, reloading and sharing lose nothing.

import type { Filter } from "../../api/types";
import { filterOf } from "../completions/filter";
import { type CurationChoices, curationOf, curationRequest } from "./curation";

export const STEPS = ["rows", "curation", "split", "student", "hyperparameters", "quote"] as const;
export type Step = (typeof STEPS)[number];

export const MINIMUM = 10;
export const FEW = 300;
/** From so many rows on, some are held back unless the reader says otherwise. */
const ENOUGH_TO_SPLIT = 100;
const SHARE_BY_DEFAULT = 10;
export const LARGEST_SHARE = 50;
export const LARGEST_SEED = 2 ** 31 - 1;
const SELECTION = "stillroom.selection";
const SUFFIX = /^[A-Za-z0-9_-]{1,64}$/;

/** Where the rows come from. */
export type Source =
  | { kind: "filter"; filter: Filter }
  /** Rows chosen one by one; null when this tab knows of no such choice. */
  | { kind: "ids"; ids: string[] | null }
  | { kind: "file"; file: string; validation: string | null };

export const METHODS = ["supervised", "dpo", "on_policy"] as const;
export type Method = (typeof METHODS)[number];

export interface Choices {
  source: Source;
  curation: CurationChoices;
  /** Percent held back for validation; null while the default holds. */
  share: number | null;
  splitSeed: number;
  student: string | null;
  suffix: string;
  /** What the rows are, and so what is learned from them: pairs are known by looking at their file. */
  method: Method;
  /** Of on-policy distillation: the model that judges what the student says; "" is the student itself. */
  judge: string;
  dropPrompt: boolean;
  /** From 0 to 1, as it was typed; "" is plain imitation. */
  softLabels: string;
  /** As it was typed; "" stands for auto. */
  hyperparameters: Typed;
  /** As it was typed; "" lets the server choose. */
  jobSeed: string;
}

export const LIMITS = {
  n_epochs: { least: 1, most: 50, whole: true },
  batch_size: { least: 1, most: 256, whole: true },
  learning_rate_multiplier: { least: 0, most: 1000, whole: false },
  beta: { least: 0, most: 2, whole: false },
} as const;
export type HyperparameterName = keyof typeof LIMITS;
export type Typed = Record<HyperparameterName, string>;
const FOR_ALL: HyperparameterName[] = ["n_epochs", "batch_size", "learning_rate_multiplier"];

/** Those that a method has. */
export const hyperparametersOf = (method: Method): HyperparameterName[] =>
  method === "dpo" ? [...FOR_ALL, "beta"] : FOR_ALL;

export function stepOf(address: URLSearchParams): Step {
  const step = address.get("step");
  return STEPS.find((known) => known === step) ?? "rows";
}

export function choicesOf(address: URLSearchParams): Choices {
  const typed = (name: string) => address.get(name) ?? "";
  const given = (name: HyperparameterName) => (typed(name) === "auto" ? "" : typed(name));
  const share = address.get("held_back");
  const source = sourceOf(address);
  const method = methodIn(address, source);
  return {
    source,
    curation: curationOf(address),
    method,
    judge: method === "on_policy" ? typed("teacher") : "",
    dropPrompt: address.get("system_prompt") === "drop",
    softLabels: method === "supervised" ? typed("soft_label_weight") : "",
    share: share !== null && Number.isFinite(Number(share)) ? within(Number(share), 0, LARGEST_SHARE) : null,
    splitSeed: Math.round(within(Number(typed("split_seed")) || 0, 0, LARGEST_SEED)),
    student: address.get("student"),
    suffix: typed("suffix"),
    hyperparameters: {
      n_epochs: given("n_epochs"),
      batch_size: given("batch_size"),
      learning_rate_multiplier: given("learning_rate_multiplier"),
      beta: given("beta"),
    },
    jobSeed: typed("job_seed"),
  };
}

function methodIn(address: URLSearchParams, source: Source): Method {
  const named = METHODS.find((method) => method === address.get("method")) ?? "supervised";
  return named === "dpo" && source.kind !== "file" ? "supervised" : named;
}

function sourceOf(address: URLSearchParams): Source {
  const file = address.get("file");
  if (file !== null) return { kind: "file", file, validation: address.get("validation") };
  if (address.has("ids")) return { kind: "ids", ids: rememberedIds() };
  // Only whole answers are trained on, whatever the list was showing.
  const { status: _, ...filter } = filterOf(address);
  return { kind: "filter", filter };
}

function rememberedIds(): string[] | null {
  try {
    const { ids } = JSON.parse(sessionStorage.getItem(SELECTION) ?? "null") as { ids?: unknown };
    return Array.isArray(ids) && ids.length > 0 && ids.every((id) => typeof id === "string") ? ids : null;
  } catch {
    return null;
  }
}

/** How many of the rows are trained on, and how many held back. */
interface Parts {
  training: number;
  validation: number;
}

export function shareOf(choices: Choices, rows: number): number {
  return choices.share ?? (rows >= ENOUGH_TO_SPLIT ? SHARE_BY_DEFAULT : 0);
}

export function partsOf(rows: number, share: number): Parts {
  const validation = halfToEven((rows * share) / 100);
  return { training: rows - validation, validation };
}

/** As the server rounds, so that the counts are the ones it will make. */
function halfToEven(value: number): number {
  const below = Math.floor(value);
  if (value - below !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}

export const isSuffix = (text: string): boolean => text === "" || SUFFIX.test(text);

export function isHyperparameter(name: HyperparameterName, text: string): boolean {
  if (text === "") return true;
  const { least, most, whole } = LIMITS[name];
  const value = Number(text);
  if (!Number.isFinite(value) || text.trim() === "" || value > most) return false;
  return whole ? Number.isInteger(value) && value >= least : value > least;
}

/** A share of the loss: nothing of it, or up to all. */
export function isWeight(text: string): boolean {
  const value = Number(text);
  return text === "" || (text.trim() !== "" && value >= 0 && value <= 1);
}

export function isSeed(text: string): boolean {
  return text === "" || (/^\d+$/.test(text) && Number(text) <= LARGEST_SEED);
}

/** The choice as requests have it: the rows' selection, and what the job is asked with. */
export function selectionOf(choices: Choices, rows: number) {
  const { source } = choices;
  if (source.kind === "file") return null;
  const chosen = source.kind === "ids" ? { ids: source.ids ?? [] } : { filter: source.filter };
  const labels = Number(choices.softLabels) > 0 ? { soft_labels: true } : {};
  const curation = curationRequest(choices.curation);
  const curated = curation ? { curation } : {};
  return {
    ...chosen,
    validation_fraction: shareOf(choices, rows) / 100,
    seed: choices.splitSeed,
    ...labels,
    ...curated,
  };
}

export function methodOf({ method, judge, hyperparameters: typed, dropPrompt, softLabels }: Choices) {
  const numbers = hyperparametersOf(method).map((name) => [name, typed[name] === "" ? "auto" : Number(typed[name])]);
  const hyperparameters = {
    ...Object.fromEntries(numbers),
    ...(dropPrompt ? { system_prompt: "drop" } : {}),
    ...(Number(softLabels) > 0 ? { soft_label_weight: Number(softLabels) } : {}),
  };
  return { type: method, [method]: { hyperparameters, ...(judge ? { teacher: judge } : {}) } };
}

function within(value: number, least: number, most: number): number {
  return Math.min(most, Math.max(least, value));
}
