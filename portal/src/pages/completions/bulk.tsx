// What can be done with the selected rows, and what the server is doing with those of before.

import { useMutation } from "@tanstack/react-query";
import { useState } from "react";
import type { Count } from "../../api/types";
import { useText } from "../../i18n";
import { Button, ErrorNote, IconButton, Progress, useFormat } from "../../ui";
import type { Actions, Target } from "./actions";
import styles from "./completions.module.css";
import { Distill } from "./distill";
import { ExportDialog } from "./export";
import { type Deed, type Selection, sizeOf } from "./selection";
import { TagDialog } from "./tag";

interface BulkBarProps {
  selection: Selection;
  target: Target;
  /** The ids of the rows that are loaded. */
  loaded: string[];
  /** When the newest of them was stored, in seconds. */
  newest: number;
  /** How many match the filter. */
  count: Count | undefined;
  deed: (deed: Deed) => void;
  onTag: (metadata: Record<string, string | null>) => Promise<void>;
  onDelete: () => Promise<void>;
}

export function BulkBar({ selection, target, loaded, newest, count, deed, onTag, onDelete }: BulkBarProps) {
  const t = useText();
  const [asking, setAsking] = useState<"tag" | "export" | null>(null);
  const deleting = useMutation({ mutationFn: onDelete });
  const size = useSizeText(sizeOf(selection));
  return (
    <section className={styles.bar} aria-label={t("completions.selection")}>
      <span className={styles.barCount} role="status">
        {t("completions.selected", { size })}
      </span>
      <SelectAll selection={selection} loaded={loaded} newest={newest} count={count} deed={deed} />
      <span className={styles.barDeeds}>
        <Button icon="tag" onClick={() => setAsking("tag")}>
          {t("completions.tag")}
        </Button>
        <Button icon="download" onClick={() => setAsking("export")}>
          {t("completions.export")}
        </Button>
        <Button icon="trash" kind="danger" busy={deleting.isPending} onClick={() => deleting.mutate()}>
          {t("common.delete")}
        </Button>
        <Distill target={target} />
      </span>
      <span className={styles.barClear}>
        <IconButton icon="close" label={t("completions.clear_selection")} onClick={() => deed({ type: "clear" })} />
      </span>
      {deleting.error && <ErrorNote error={deleting.error} />}
      {asking === "tag" && <TagDialog size={size} onTag={onTag} onClose={() => setAsking(null)} />}
      {asking === "export" && <ExportDialog target={target} onClose={() => setAsking(null)} />}
    </section>
  );
}

/** From the rows that are loaded to everything that matches. */
function SelectAll({
  selection,
  loaded,
  newest,
  count,
  deed,
}: Pick<BulkBarProps, "selection" | "loaded" | "newest" | "count" | "deed">) {
  const t = useText();
  const size = useSizeText(count ?? { count: 0, at_least: false });
  if (selection.kind === "all") return <span className="small">{t("completions.later_not_included")}</span>;
  if (!count || selection.ids.size < loaded.length || (count.count <= loaded.length && !count.at_least)) return null;
  return (
    <Button kind="ghost" onClick={() => deed({ type: "all", count, before: newest + 1 })}>
      {t("completions.select_all", { size })}
    </Button>
  );
}

function useSizeText(size: Count): string {
  const format = useFormat();
  return size.at_least ? `${format.number(size.count)}+` : format.number(size.count);
}

/** What the server is at: how far it is, and a way to stop it. */
export function UnderWay({ actions }: { actions: Actions }) {
  const t = useText();
  return actions.underWay.map((action) => {
    const done = action.done + action.skipped;
    const doing = t(`completions.doing_${action.action}`, { count: done });
    return (
      <div key={action.id} className={styles.underWay}>
        <span>{action.matched === null ? doing : t("completions.doing_of", { doing, total: action.matched })}</span>
        <Progress label={doing} done={done} total={action.matched} />
        <Button onClick={() => actions.cancel(action.id)}>
          {action.status === "waiting" ? t("common.undo") : t("completions.stop")}
        </Button>
      </div>
    );
  });
}
