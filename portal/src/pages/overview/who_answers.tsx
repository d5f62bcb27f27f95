import type { Overview } from "../../api/types";
import { useText } from "../../i18n";
import { Badge, type Column, Table, useFormat } from "../../ui";

interface Answering {
  name: string;
  kind: "teacher" | "student";
  calls: number;
  answers: number;
  hosting: number;
}

/** Every teacher and student that was called, and what it cost. */
export function WhoAnswers({ overview }: { overview: Overview }) {
  const t = useText();
  const format = useFormat();
  const rows: Answering[] = [
    ...overview.teachers.map((one) => ({
      name: one.name,
      kind: "teacher" as const,
      calls: one.calls,
      answers: one.cost_microusd,
      hosting: 0,
    })),
    ...byName(overview.students).map((one) => ({
      name: one.name,
      kind: "student" as const,
      calls: one.calls,
      answers: one.cost_microusd,
      hosting: one.hosting_microusd,
    })),
  ].filter(({ calls }) => calls > 0);
  if (rows.length === 0) return null;
  const columns: Column<Answering>[] = [
    {
      key: "name",
      header: t("overview.name"),
      wide: true,
      cell: (row) => (
        <span className="row">
          <span className="said">{row.name}</span>
          <Badge tone={row.kind}>{t(`overview.kind_${row.kind}`)}</Badge>
        </span>
      ),
    },
    { key: "calls", header: t("overview.calls"), align: "end", cell: (row) => format.number(row.calls) },
    { key: "answers", header: t("overview.answers"), align: "end", cell: (row) => format.money(row.answers) },
    { key: "hosting", header: t("overview.hosting"), align: "end", cell: (row) => format.money(row.hosting) },
  ];
  return (
    <section className="stack">
      <h2>{t("overview.who")}</h2>
      <Table label={t("overview.who")} columns={columns} rows={rows} rowKey={(row) => `${row.kind} ${row.name}`} />
    </section>
  );
}

type Student = Overview["students"][number];

/** A name that pointed at one model after another is one. */
function byName(students: Student[]): Student[] {
  const found = new Map<string, Student>();
  for (const one of students) {
    const before = found.get(one.name);
    if (!before) found.set(one.name, one);
    else {
      found.set(one.name, {
        ...before,
        calls: before.calls + one.calls,
        cost_microusd: before.cost_microusd + one.cost_microusd,
        hosting_microusd: before.hosting_microusd + one.hosting_microusd,
      });
    }
  }
  return [...found.values()];
}
