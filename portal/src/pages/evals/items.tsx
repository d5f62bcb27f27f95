import { said } from "../../api/messages";
import type { EvalRun, OutputItem } from "../../api/types";
import { useText } from "../../i18n";
import { Button, type Column, ErrorNote, Select, Table, useAddress, useFormat, Waiting } from "../../ui";
import { isGoing, useItems } from "./asking";
import styles from "./evals.module.css";
import { ItemPanel } from "./item_panel";
import { ItemState } from "./item_state";
import { questionOf } from "./question_of";

const STATUSES = ["pass", "fail", "error"] as const;

/** What a run found, item by item; which ones and the opened one are in the address. */
export function Items({ run }: { run: EvalRun }) {
  const t = useText();
  const { address, set } = useAddress();
  const status = STATUSES.find((one) => one === address.get("status")) ?? null;
  const items = useItems(run.eval_id, run.id, status, isGoing(run));
  const found = items.data?.pages.flatMap((page) => page.data) ?? [];
  const opened = address.get("item");
  return (
    <section className="stack">
      <div className="spread">
        <h2>{t("evals.items")}</h2>
        <Select
          bare
          label={t("evals.item_filter")}
          value={status ?? ""}
          choices={[
            { value: "", label: t("evals.item_all") },
            ...STATUSES.map((value) => ({ value, label: t(`evals.item_${value}`) })),
          ]}
          onChange={(event) => set({ status: event.target.value || null })}
        />
      </div>
      {items.error && !items.data && <ErrorNote error={items.error} onRetry={() => items.refetch()} />}
      {items.isPending && <Waiting />}
      {items.data && found.length === 0 && <p className="quiet">{t("evals.no_items")}</p>}
      {found.length > 0 && <ItemTable items={found} onOpen={(id) => set({ item: id })} />}
      {items.hasNextPage && (
        <div>
          <Button onClick={() => items.fetchNextPage()} busy={items.isFetchingNextPage}>
            {t("common.show_more")}
          </Button>
        </div>
      )}
      {opened && (
        <ItemPanel
          run={run}
          id={opened}
          known={found.find((item) => item.id === opened)}
          onClose={() => set({ item: null })}
        />
      )}
    </section>
  );
}

function ItemTable({ items, onOpen }: { items: OutputItem[]; onOpen: (id: string) => void }) {
  const t = useText();
  const { number } = useFormat();
  const columns: Column<OutputItem>[] = [
    {
      key: "question",
      header: t("evals.question"),
      wide: true,
      cell: (item) => (
        <button type="button" className={styles.open} onClick={() => onOpen(item.id)}>
          <span className="unseen">{t("evals.item_open", { number: item.datasource_item_id + 1 })}</span>
          <span className={`${styles.clip} said`}>{questionOf(item) || item.id}</span>
        </button>
      ),
    },
    {
      key: "answer",
      header: t("evals.answer"),
      wide: true,
      cell: (item) => <span className={`${styles.clip} said quiet`}>{said(item.sample.output[0]) || "–"}</span>,
    },
    { key: "status", header: t("evals.state"), cell: (item) => <ItemState status={item.status} /> },
    {
      key: "passed",
      header: t("evals.criteria_passed"),
      align: "end",
      cell: (item) =>
        item.results.length > 0 &&
        `${number(item.results.filter((result) => result.passed).length)} / ${number(item.results.length)}`,
    },
  ];
  return <Table label={t("evals.items")} columns={columns} rows={items} rowKey={(item) => item.id} />;
}
