// What the wizard has been told so far, all of it in the address: going back, reloading and sharing lose nothing.

import type { Filter } from "../../api/types";
import { filterOf } from "../completions/filter";

export const STEPS = ["rows", "split", "student", "hyperparameters", "quote"] as const;
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

export interface Choices {
  source: Source;
  /** Percent held back for validation; null while the default holds. */
  share: number | null;
  splitSeed: number;
  student: string | null;
  suffix: string;
  /** As it was typed; "" stands for auto. */
  hyperparameters: Record<HyperparameterName, string>;
  /** As it was typed; "" lets the server choose. */
  jobSeed: string;
}

export const LIMITS = {
  n_epochs: { least: 1, most: 50, whole: true },
  batch_size: { least: 1, most: 256, whole: true },
  learning_rate_multiplier: { least: 0, most: 1000, whole: false },
} as const;
export type HyperparameterName = keyof typeof LIMITS;
export const HYPERPARAMETERS = Object.keys(LIMITS) as HyperparameterName[];

export function stepOf(address: URLSearchParams): Step {
  const step = address.get("step");
  return STEPS.find((known) => known === step) ?? "rows";
}

export function choicesOf(address: URLSearchParams): Choices {
  const typed = (name: string) => address.get(name) ?? "";
  const given = (name: HyperparameterName) => (typed(name) === "auto" ? "" : typed(name));
  const share = address.get("held_back");
  return {
    source: sourceOf(address),
    share: share !== null && Number.isFinite(Number(share)) ? within(Number(share), 0, LARGEST_SHARE) : null,
    splitSeed: Math.round(within(Number(typed("split_seed")) || 0, 0, LARGEST_SEED)),
    student: address.get("student"),
    suffix: typed("suffix"),
    hyperparameters: {
      n_epochs: given("n_epochs"),
      batch_size: given("batch_size"),
      learning_rate_multiplier: given("learning_rate_multiplier"),
    },
    jobSeed: typed("job_seed"),
  };
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

export function isSeed(text: string): boolean {
  return text === "" || (/^\d+$/.test(text) && Number(text) <= LARGEST_SEED);
}

/** The choice as requests have it: the rows' selection, and what the job is asked with. */
export function selectionOf(choices: Choices, rows: number) {
  const { source } = choices;
  if (source.kind === "file") return null;
  const chosen = source.kind === "ids" ? { ids: source.ids ?? [] } : { filter: source.filter };
  return { ...chosen, validation_fraction: shareOf(choices, rows) / 100, seed: choices.splitSeed };
}

export function methodOf({ hyperparameters }: Choices) {
  const given = HYPERPARAMETERS.map((name) => [
    name,
    hyperparameters[name] === "" ? "auto" : Number(hyperparameters[name]),
  ]);
  return { type: "supervised", supervised: { hyperparameters: Object.fromEntries(given) } };
}

function within(value: number, least: number, most: number): number {
  return Math.min(most, Math.max(least, value));
}
