import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { get } from "../../api/http";
import type { List, Price } from "../../api/types";
import { useText } from "../../i18n";
import { Badge, Check, type Column, ErrorNote, Table, type Tone, useFormat, Waiting } from "../../ui";

const KINDS = ["teacher", "student", "model", "deployment"] as const;
const TONES: Record<string, Tone> = { teacher: "teacher", student: "student", deployment: "student", model: "plain" };

/** What everything is counted at, and where that is set. */
export function PriceBook() {
  const t = useText();
  const [all, setAll] = useState(false);
  const prices = useQuery({
    queryKey: ["prices"],
    queryFn: ({ signal }) => get<List<Price>>("/v1/stillroom/prices", signal),
  });
  const rows = prices.data?.data ?? [];
  const tuned = rows.filter((price) => price.kind === "model");
  return (
    <section className="stack">
      <div className="spread">
        <div>
          <h2>{t("usage.prices")}</h2>
          <p className="page-text">{t("usage.prices_text")}</p>
        </div>
        {tuned.length > 0 && (
          <Check
            label={t("usage.prices_all", { count: tuned.length })}
            checked={all}
            onChange={(event) => setAll(event.target.checked)}
          />
        )}
      </div>
      {prices.error && !prices.data && <ErrorNote error={prices.error} onRetry={() => prices.refetch()} />}
      {prices.isPending && <Waiting />}
      {prices.data && <Prices rows={all ? rows : rows.filter((price) => price.kind !== "model")} />}
    </section>
  );
}

function Prices({ rows }: { rows: Price[] }) {
  const t = useText();
  const format = useFormat();
  const rate = (key: string, header: string, usd: (price: Price) => number): Column<Price> => ({
    key,
    header,
    align: "end",
    cell: (price) => <span className={usd(price) ? "" : "quiet"}>{format.usd(usd(price))}</span>,
  });
  const columns: Column<Price>[] = [
    {
      key: "name",
      header: t("usage.price_name"),
      wide: true,
      cell: (price) => (
        <span className="row">
          <span className="said">{price.name}</span>
          <KindBadge kind={price.kind} />
        </span>
      ),
    },
    rate("input", t("usage.price_input"), (price) => price.usd_per_million.input),
    rate("cached", t("usage.price_cached"), (price) => price.usd_per_million.cached_input),
    rate("output", t("usage.price_output"), (price) => price.usd_per_million.output),
    rate("training", t("usage.price_training"), (price) => price.usd_per_million.training),
    rate("hosting", t("usage.price_hosting"), (price) => price.usd_per_hosting_hour),
    { key: "source", header: t("usage.price_source"), cell: (price) => <code>{price.source}</code> },
  ];
  return (
    <Table label={t("usage.prices")} columns={columns} rows={rows} rowKey={(price) => `${price.kind} ${price.name}`} />
  );
}

function KindBadge({ kind }: { kind: string }) {
  const t = useText();
  const known = KINDS.find((one) => one === kind);
  return <Badge tone={TONES[kind] ?? "plain"}>{known ? t(`usage.price_${known}`) : kind}</Badge>;
}
