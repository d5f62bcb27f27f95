import { useText } from "../../i18n";
import type { Group } from "./groups";

const KINDS = ["answer", "evaluation", "training", "hosting"] as const;

/** How a group is written: kinds in the reader's language, names as they are, and something for none. */
export function useGroupName(group: Group): (name: string | null) => string {
  const t = useText();
  return (name) => {
    if (name === null) return t(group === "deployment" ? "usage.no_deployment" : "usage.no_key");
    const kind = group === "kind" ? KINDS.find((known) => known === name) : undefined;
    return kind ? t(`usage.kind_${kind}`) : name;
  };
}
