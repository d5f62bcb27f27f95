import { useText } from "../../i18n";
import { Badge, type Tone } from "../../ui";
import type { ItemStatus } from "./asking";

const TONES: Record<ItemStatus, Tone> = { pass: "good", fail: "bad", error: "warn" };

export function ItemState({ status }: { status: ItemStatus }) {
  const t = useText();
  return <Badge tone={TONES[status]}>{t(`evals.item_${status}`)}</Badge>;
}
