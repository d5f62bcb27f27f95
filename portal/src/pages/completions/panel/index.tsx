// One completion beside the list: what was said, what it cost, its metadata, and how to repeat it.

import { useMutation, useQuery } from "@tanstack/react-query";
import { type KeyboardEvent, useState } from "react";
import { ApiError, get } from "../../../api/http";
import type { CompletionDetail } from "../../../api/types";
import { useText } from "../../../i18n";
import { Empty, ErrorNote, IconButton, Panel, Tabs, Waiting } from "../../../ui";
import { COMPLETIONS } from "../filter";
import { Conversation } from "./conversation";
import { Figures } from "./figures";
import { LongText } from "./long_text";
import { MetadataEditor } from "./metadata";
import styles from "./panel.module.css";
import { Repeat } from "./repeat";

const VIEWS = ["conversation", "raw", "repeat"] as const;
type View = (typeof VIEWS)[number];

interface DetailPanelProps {
  id: string;
  /** The rows above and below in the list, where there are any. */
  neighbours: { newer: string | undefined; older: string | undefined };
  onOpen: (id: string | null) => void;
  onDelete: (id: string) => Promise<void>;
}

export function DetailPanel({ id, neighbours, onOpen, onDelete }: DetailPanelProps) {
  const t = useText();
  const [view, setView] = useState<View>("conversation");
  const detail = useQuery({
    queryKey: ["completions", "detail", id],
    queryFn: ({ signal }) => get<CompletionDetail>(`${COMPLETIONS}/${encodeURIComponent(id)}`, signal),
  });
  const deleting = useMutation({ mutationFn: onDelete });
  const gone = detail.error instanceof ApiError && detail.error.status === 404;
  const go = (to: string | undefined) => to !== undefined && onOpen(to);
  const press = (event: KeyboardEvent<HTMLElement>) => {
    // Where nothing else takes them: in the tabs, fields and long texts the arrows mean something.
    if (event.target instanceof Element && event.target.closest("input, textarea, [role=tablist], [data-scrolls]"))
      return;
    const to = { ArrowUp: neighbours.newer, ArrowDown: neighbours.older }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    onOpen(to);
  };
  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: the keys are for what is focused inside
    <div className={styles.keys} onKeyDown={press}>
      <Panel
        title={t("completions.one")}
        onClose={() => onOpen(null)}
        actions={
          <>
            <IconButton
              icon="trash"
              label={t("completions.delete_this")}
              disabled={!detail.data || gone}
              busy={deleting.isPending}
              onClick={() => deleting.mutate(id)}
            />
            <IconButton
              icon="up"
              label={t("completions.newer")}
              disabled={neighbours.newer === undefined}
              onClick={() => go(neighbours.newer)}
            />
            <IconButton
              icon="down"
              label={t("completions.older")}
              disabled={neighbours.older === undefined}
              onClick={() => go(neighbours.older)}
            />
          </>
        }
      >
        {gone && (
          <Empty title={t("completions.gone")}>
            <p>{t("completions.gone_text")}</p>
          </Empty>
        )}
        {deleting.error && <ErrorNote error={deleting.error} />}
        {detail.isPending && <Waiting />}
        {detail.error != null && !gone && <ErrorNote error={detail.error} onRetry={() => detail.refetch()} />}
        {detail.data && !gone && (
          <>
            <Figures detail={detail.data} />
            <MetadataEditor key={id} id={id} metadata={detail.data.metadata} />
            <Tabs
              label={t("completions.views")}
              tabs={VIEWS.map((name) => ({ name, label: t(`completions.view_${name}`) }))}
              chosen={view}
              onChoose={setView}
            >
              <div key={id} className="stack">
                {view === "conversation" && <Conversation detail={detail.data} />}
                {view === "raw" && <Raw detail={detail.data} />}
                {view === "repeat" && <Repeat detail={detail.data} />}
              </div>
            </Tabs>
          </>
        )}
      </Panel>
    </div>
  );
}

function Raw({ detail }: { detail: CompletionDetail }) {
  const t = useText();
  return (
    <>
      <LongText code label={t("completions.request")} text={JSON.stringify(detail.request, null, 2)} />
      <LongText code label={t("completions.response")} text={JSON.stringify(detail.response, null, 2)} />
    </>
  );
}
