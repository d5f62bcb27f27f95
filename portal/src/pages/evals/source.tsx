import { useText } from "../../i18n";

const SOURCES = ["stored_completions", "custom", "logs"] as const;

/** Where an eval's items come from. */
export function Source({ type }: { type: string }) {
  const t = useText();
  const known = SOURCES.find((one) => one === type);
  return known ? t(`evals.source_${known}`) : type;
}
