import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.PropertyNamingStrategies;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.math.BigDecimal;
import java.math.RoundingMode;
import java.time.Duration;
import java.time.OffsetDateTime;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.kstream.Branched;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Joined;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.KTable;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.Repartitioned;
import org.apache.kafka.streams.processor.api.ContextualFixedKeyProcessor;
import org.apache.kafka.streams.processor.api.FixedKeyProcessorContext;
import org.apache.kafka.streams.processor.api.FixedKeyRecord;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * W1 on Kafka Streams: by customer, drop repeats, join the referral and look at the 12 months; then, by partner, count
 * paying clients, price, and keep the balance. Decides in the order of arrival; a payment without a referral is dropped.
 *
 * Arguments: bootstrap servers, processing guarantee, state directory.
 */
public final class Commission {
    static final int PARTITIONS = 4;
    static final int THREADS = 2;
    static final byte[] SEEN = {1};
    static final Serde<String> STRING = Serdes.String();
    static final ObjectMapper JSON = new ObjectMapper()
        .setPropertyNamingStrategy(PropertyNamingStrategies.SNAKE_CASE)
        .configure(DeserializationFeature.FAIL_ON_UNKNOWN_PROPERTIES, false);
    static final AtomicBoolean ANY_CONSUMED = new AtomicBoolean();

    record Money(long minor, String currency) {}

    record Payment(String paymentId, String customerId, String accountId, Money amount) {}

    record PaymentEvent(String type, String time, Payment data) {}

    record Referral(String customerId, String partnerId, String programId, int programVersion, String attributedAt) {}

    record ReferralEvent(String type, Referral data) {}

    /** A payment beside its referral: what goes from the customer's partition to the partner's. */
    record Sale(Payment payment, Referral referral, String time, boolean earns) {}

    record Partner(int clients, long balance) {}

    record Accrued(String commissionId, String paymentId, String customerId, String accountId, String partnerId,
                   String programId, int programVersion, Money base, String rate, Money amount, String availableAt) {}

    record Declined(String paymentId, String customerId, String accountId, String partnerId, String programId,
                    int programVersion, String reason) {}

    record Said(String specversion, String id, String source, String type, String time, String datacontenttype,
                Object data) {
        static Said of(String id, String type, String time, Object data) {
            return new Said("1.0", id, "/commission", type, time, "application/json", data);
        }
    }

    /** Lets a payment id through once. It remembers for ever, as events may come late by any time. */
    static final class Once extends ContextualFixedKeyProcessor<String, PaymentEvent, PaymentEvent> {
        private KeyValueStore<String, byte[]> known;

        @Override
        public void init(FixedKeyProcessorContext<String, PaymentEvent> context) {
            super.init(context);
            known = context.getStateStore("known");
        }

        @Override
        public void process(FixedKeyRecord<String, PaymentEvent> record) {
            if (known.putIfAbsent(record.value().data().paymentId(), SEEN) == null) {
                context().forward(record);
            }
        }
    }

    /** Prices a sale by the partner's paying clients, this one included, and adds it to the balance. */
    static final class Price extends ContextualFixedKeyProcessor<String, Sale, Said> {
        private KeyValueStore<String, Partner> partners;
        private KeyValueStore<String, byte[]> clients;

        @Override
        public void init(FixedKeyProcessorContext<String, Said> context) {
            super.init(context);
            partners = context.getStateStore("partners");
            clients = context.getStateStore("clients");
        }

        @Override
        public void process(FixedKeyRecord<String, Sale> record) {
            Sale sale = record.value();
            String partnerId = sale.referral().partnerId();
            Partner before = partners.get(partnerId);
            boolean isNew = clients.putIfAbsent(partnerId + "|" + sale.payment().customerId(), SEEN) == null;
            int paying = (before == null ? 0 : before.clients()) + (isNew ? 1 : 0);
            BigDecimal rate = new BigDecimal(paying >= 21 ? "0.30" : paying >= 6 ? "0.20" : "0.10");
            Money base = sale.payment().amount();
            long minor = rate.multiply(BigDecimal.valueOf(base.minor())).setScale(0, RoundingMode.HALF_EVEN).longValueExact();
            partners.put(partnerId, new Partner(paying, (before == null ? 0 : before.balance()) + minor));
            context().forward(record.withValue(accrued(sale, rate, new Money(minor, base.currency()))));
        }
    }

    static Said accrued(Sale sale, BigDecimal rate, Money amount) {
        Payment payment = sale.payment();
        Referral by = sale.referral();
        String id = "com-" + payment.paymentId();
        return Said.of(id, "commission.accrued", sale.time(), new Accrued(id, payment.paymentId(), payment.customerId(),
            payment.accountId(), by.partnerId(), by.programId(), by.programVersion(), payment.amount(),
            rate.toPlainString(), amount, sale.time()));
    }

    static Said declined(Sale sale) {
        Payment payment = sale.payment();
        Referral by = sale.referral();
        return Said.of("dec-" + payment.paymentId(), "commission.declined", sale.time(), new Declined(
            payment.paymentId(), payment.customerId(), payment.accountId(), by.partnerId(), by.programId(),
            by.programVersion(), "outside_window"));
    }

    static Sale sale(PaymentEvent paid, Referral referral) {
        OffsetDateTime at = OffsetDateTime.parse(paid.time());
        OffsetDateTime bound = OffsetDateTime.parse(referral.attributedAt());
        boolean earns = !at.isBefore(bound) && at.isBefore(bound.plusMonths(12));
        return new Sale(paid.data(), referral, paid.time(), earns);
    }

    static Topology topology() {
        StreamsBuilder builder = new StreamsBuilder();
        builder.addStateStore(Stores.keyValueStoreBuilder(
            Stores.persistentKeyValueStore("known"), STRING, Serdes.ByteArray()));
        builder.addStateStore(Stores.keyValueStoreBuilder(
            Stores.persistentKeyValueStore("clients"), STRING, Serdes.ByteArray()).withCachingEnabled());
        builder.addStateStore(Stores.keyValueStoreBuilder(
            Stores.persistentKeyValueStore("partners"), STRING, json(Partner.class)).withCachingEnabled());

        KTable<String, Referral> referrals = builder
            .stream("referrals", Consumed.with(STRING, json(ReferralEvent.class)))
            .peek((key, event) -> consumed())
            .filter((key, event) -> event.type().equals("referral.attributed"))
            .mapValues(ReferralEvent::data)
            .toTable(Materialized.<String, Referral>as(Stores.persistentKeyValueStore("bound"))
                .withKeySerde(STRING).withValueSerde(json(Referral.class)));

        KStream<String, Sale> sales = builder
            .stream("payments", Consumed.with(STRING, json(PaymentEvent.class)))
            .peek((key, event) -> consumed())
            .filter((key, event) -> event.type().equals("payment.succeeded"))
            .processValues(Once::new, "known")
            .join(referrals, Commission::sale, Joined.with(STRING, json(PaymentEvent.class), json(Referral.class)));

        sales.split()
            .branch((key, sale) -> sale.earns(), Branched.withConsumer(earning -> earning
                .selectKey((key, sale) -> sale.referral().partnerId())
                .repartition(Repartitioned.with(STRING, json(Sale.class)).withName("sales")
                    .withNumberOfPartitions(PARTITIONS))
                .processValues(Price::new, "partners", "clients")
                .to("commissions", Produced.with(STRING, json(Said.class)))))
            .defaultBranch(Branched.withConsumer(late -> late
                .map((key, sale) -> KeyValue.pair(sale.referral().partnerId(), declined(sale)))
                .to("commissions", Produced.with(STRING, json(Said.class)))));
        return builder.build();
    }

    static <T> Serde<T> json(Class<T> type) {
        var reader = JSON.readerFor(type);
        var writer = JSON.writerFor(type);
        return Serdes.serdeFrom(
            (topic, value) -> {
                try {
                    return value == null ? null : writer.writeValueAsBytes(value);
                } catch (IOException e) {
                    throw new UncheckedIOException(e);
                }
            },
            (topic, bytes) -> {
                try {
                    return bytes == null ? null : reader.<T>readValue(bytes);
                } catch (IOException e) {
                    throw new UncheckedIOException(e);
                }
            });
    }

    /** Says once when the first record came: the measurement's clock starts there. */
    static void consumed() {
        if (!ANY_CONSUMED.get() && ANY_CONSUMED.compareAndSet(false, true)) {
            System.out.println("FIRST " + System.currentTimeMillis());
        }
    }

    public static void main(String[] arguments) throws InterruptedException {
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, "w1");
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0]);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, arguments[1]);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, arguments[2]);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, THREADS);
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        settings.put(StreamsConfig.TOPOLOGY_OPTIMIZATION_CONFIG, StreamsConfig.OPTIMIZE);
        settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 64L << 20);
        settings.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
        settings.put(StreamsConfig.consumerPrefix("max.poll.records"), 5_000);
        settings.put(StreamsConfig.producerPrefix("batch.size"), 128 << 10);
        settings.put(StreamsConfig.producerPrefix("buffer.memory"), 64 << 20);
        KafkaStreams streams = new KafkaStreams(topology(), settings);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(20))));
        streams.start();
        Thread.currentThread().join();
    }
}
