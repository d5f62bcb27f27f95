// What can be done with the selected rows, and what the server is doing with those of before.

import { useMutation } from "@tanstack/react-query";
import { useState } from "react";
import type { Count } from "../../api/types";
import { useText } from "../../i18n";
import { Button, Confirm, ErrorNote, IconButton, Progress, useFormat } from "../../ui";
import { type Actions, deletingText, type Target } from "./actions";
import styles from "./completions.module.css";
import { Distill } from "./distill";
import { ExportDialog } from "./export";
import type { Deed, Selection } from "./selection";
import { TagDialog } from "./tag";

/** More are not deleted by one press. */
const ASKED_ABOVE = 100;

interface BulkBarProps {
  selection: Selection;
  target: Target;
  /** How many are selected; `at_least` when a filter matches more than is counted. */
  size: Count;
  /** The ids of the rows that are loaded. */
  loaded: string[];
  /** How many match the filter. */
  count: Count | undefined;
  deed: (deed: Deed) => void;
  onTag: (metadata: Record<string, string | null>) => Promise<void>;
  onDelete: () => Promise<void>;
}

export function BulkBar(props: BulkBarProps) {
  const { selection, target, loaded, count, deed, onTag, onDelete } = props;
  const t = useText();
  const [asking, setAsking] = useState<"tag" | "export" | "delete" | null>(null);
  const deleting = useMutation({ mutationFn: onDelete });
  const size = useSizeText(props.size);
  const isMany = selection.kind === "all" || props.size.count > ASKED_ABOVE;
  return (
    <section className={styles.bar} aria-label={t("completions.selection")}>
      <span className={styles.barCount} role="status">
        {t("completions.selected", { size })}
      </span>
      <SelectAll selection={selection} loaded={loaded} count={count} deed={deed} />
      <span className={styles.barDeeds}>
        <Button icon="tag" onClick={() => setAsking("tag")}>
          {t("completions.tag")}
        </Button>
        <Button icon="download" onClick={() => setAsking("export")}>
          {t("completions.export")}
        </Button>
        <Button
          icon="trash"
          kind="danger"
          busy={deleting.isPending}
          onClick={() => (isMany ? setAsking("delete") : deleting.mutate())}
        >
          {t("common.delete")}
        </Button>
        <Distill target={target} />
      </span>
      <span className={styles.barClear}>
        <IconButton icon="close" label={t("completions.clear_selection")} onClick={() => deed({ type: "clear" })} />
      </span>
      {deleting.error && asking !== "delete" && <ErrorNote error={deleting.error} />}
      {asking === "delete" && (
        <Confirm
          title={t("completions.delete_title", { size })}
          text={t("completions.delete_text")}
          deed={t("completions.delete_deed", { size })}
          busy={deleting.isPending}
          error={deleting.error}
          onConfirm={() => deleting.mutate()}
          onClose={() => setAsking(null)}
        />
      )}
      {asking === "tag" && <TagDialog size={size} onTag={onTag} onClose={() => setAsking(null)} />}
      {asking === "export" && <ExportDialog target={target} onClose={() => setAsking(null)} />}
    </section>
  );
}

/** From the rows that are loaded to everything that matches. */
function SelectAll({ selection, loaded, count, deed }: Pick<BulkBarProps, "selection" | "loaded" | "count" | "deed">) {
  const t = useText();
  const size = useSizeText(count ?? { count: 0, at_least: false });
  if (selection.kind === "all") return <span className="small">{t("completions.later_not_included")}</span>;
  const newest = loaded[0];
  const all = count && newest !== undefined && (count.count > loaded.length || count.at_least) && (
    <Button onClick={() => deed({ type: "all", count, upTo: newest })}>{t("completions.select_all", { size })}</Button>
  );
  if (selection.narrowed) {
    return (
      <>
        <span className="small" role="status">
          {t("completions.only_loaded")}
        </span>
        {all}
      </>
    );
  }
  return selection.ids.size >= loaded.length && all;
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
    const waits = action.status === "waiting" && action.action === "delete";
    const doing = t(`completions.doing_${action.action}`, { count: done });
    return (
      <div key={action.id} className={styles.underWay}>
        {waits ? (
          <span className={styles.waits}>{deletingText(t, action)}</span>
        ) : (
          <>
            <span>{action.matched === null ? doing : t("completions.doing_of", { doing, total: action.matched })}</span>
            <Progress label={doing} done={done} total={action.matched} />
          </>
        )}
        <Button onClick={() => actions.cancel(action.id)}>{waits ? t("common.undo") : t("completions.stop")}</Button>
      </div>
    );
  });
}
