// Which rows are left out of a training file, as it stands in the address and as the API is asked.

/** How similar near-duplicates are, when nobody says otherwise. */
export const LIKELY = 0.8;
export const LEAST_SIMILAR = 0.5;
export const LIMITS_OF_LENGTH = ["min_prompt", "max_prompt", "min_answer", "max_answer"] as const;
export type LengthLimit = (typeof LIMITS_OF_LENGTH)[number];

/** What was typed is kept as it was; "" stands for nothing. */
export interface CurationChoices {
  exact: boolean;
  /** A share from 0.5 to 1; "" leaves near-duplicates in. */
  near: string;
  refusals: boolean;
  truncated: boolean;
  languages: string[];
  /** Characters. */
  lengths: Record<LengthLimit, string>;
}

export function curationOf(address: URLSearchParams): CurationChoices {
  const typed = (name: string) => address.get(name) ?? "";
  return {
    exact: typed("duplicates") === "exact",
    near: typed("near_duplicates"),
    refusals: typed("refusals") === "out",
    truncated: typed("truncated") === "out",
    languages: typed("languages").split(",").filter(Boolean),
    lengths: {
      min_prompt: typed("min_prompt"),
      max_prompt: typed("max_prompt"),
      min_answer: typed("min_answer"),
      max_answer: typed("max_answer"),
    },
  };
}

/** As the API is asked; null when nothing is to be left out. */
export function curationRequest(chosen: CurationChoices): Record<string, unknown> | null {
  const lengths = LIMITS_OF_LENGTH.filter((name) => chosen.lengths[name] !== "");
  const asked = {
    ...(chosen.exact ? { exact_duplicates: true } : {}),
    ...(chosen.near === "" ? {} : { near_duplicates: Number(chosen.near) }),
    ...(chosen.refusals ? { refusals: true } : {}),
    ...(chosen.truncated ? { truncated: true } : {}),
    ...(chosen.languages.length ? { languages: chosen.languages } : {}),
    ...Object.fromEntries(lengths.map((name) => [`${name}_characters`, Number(chosen.lengths[name])])),
  };
  return Object.keys(asked).length ? asked : null;
}

export const isSimilarity = (text: string): boolean =>
  text === "" || (text.trim() !== "" && Number(text) >= LEAST_SIMILAR && Number(text) <= 1);

export const isLength = (text: string): boolean => text === "" || /^\d{1,9}$/.test(text);

export function isCuration({ near, lengths }: CurationChoices): boolean {
  return isSimilarity(near) && LIMITS_OF_LENGTH.every((name) => isLength(lengths[name]));
}
